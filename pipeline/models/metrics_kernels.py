"""The work of ``metrics`` on each sample, compiled: a step waits for it, so it takes microseconds and holds no lock.

B samples of a batch; P pages of buckets in use.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

KEY_BITS = 22
PAGE_BITS = 10


@njit(nogil=True, cache=True)
def score(logits_b: Any, labels_b: Any, keys_b: Any) -> tuple[float, int]:
    """Write the bucket of each logit, rising with it (both zeros share one), to ``keys_b`` int64 [B].

    Returns (the sum of the log losses in float64, the position of the first label that is neither 0 nor 1, or -1).
    """
    bits_b = (logits_b + np.float32(0.0)).view(np.uint32)
    total = 0.0
    for b in range(logits_b.shape[0]):
        if labels_b[b] != 0.0 and labels_b[b] != 1.0:
            return total, b
        logit = np.float64(logits_b[b])
        total += math.log1p(math.exp(-abs(logit))) + max(-logit if labels_b[b] == 1.0 else logit, 0.0)
        if logit != logit:
            total = math.nan
        bits = np.int64(bits_b[b])
        sortable = bits ^ 0xFFFFFFFF if bits & 0x80000000 else bits | 0x80000000
        keys_b[b] = sortable >> (32 - KEY_BITS)
    return total, -1


@njit(nogil=True, cache=True)
def count_into(keys_b: Any, labels_b: Any, page_of: Any, counts_pc2: Any) -> bool:
    """Count each sample in its bucket. False, with nothing counted, when a bucket's page is not there yet."""
    for b in range(keys_b.shape[0]):
        if page_of[keys_b[b] >> PAGE_BITS] < 0:
            return False
    for b in range(keys_b.shape[0]):
        page = page_of[keys_b[b] >> PAGE_BITS]
        counts_pc2[page, keys_b[b] & ((1 << PAGE_BITS) - 1), np.int64(labels_b[b])] += 1
    return True
