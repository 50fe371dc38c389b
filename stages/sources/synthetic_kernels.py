"""Draws ids, weights and labels of synthetic samples. Every number is a pure function of keys and the sample's
position.

B samples from ``first`` on; n ids. Zipf: rejection-inversion, exact and without a table (Hörmann and Derflinger, 1996).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from stages.items import Float32s, Int64s
from stages.mixing import mix, signed, unit

Float64s = npt.NDArray[np.float64]
ROOT_3 = math.sqrt(3.0)
FEISTEL_ROUNDS = 4


@njit(nogil=True, cache=True)
def _integral(x: float, s: float) -> float:
    """Integral of t**-s from 1 to x."""
    log_x = math.log(x)
    t = (1.0 - s) * log_x
    return log_x * (math.expm1(t) / t if abs(t) > 1e-8 else 1.0 + t * 0.5)


@njit(nogil=True, cache=True)
def _inverse(y: float, s: float) -> float:
    """The x at which ``_integral`` is y."""
    t = max(y * (1.0 - s), -1.0)
    return math.exp(y * (math.log1p(t) / t if abs(t) > 1e-8 else 1.0 - t * 0.5))


@njit(nogil=True, cache=True)
def _zipf(key: np.uint64, count: int, s: float) -> int:
    """A rank in 0..count-1, rank r with weight (r + 1)**-s."""
    top, bottom = _integral(count + 0.5, s), _integral(1.5, s) - 1.0
    safe = 2.0 - _inverse(_integral(2.5, s) - math.exp(-s * math.log(2.0)), s)
    attempt = np.uint64(0)
    while True:
        u = top + unit(mix(key, attempt)) * (bottom - top)
        x = _inverse(u, s)
        k = min(max(int(x + 0.5), 1), count)
        if k - x <= safe or u >= _integral(k + 0.5, s) - math.exp(-s * math.log(float(k))):
            return k - 1
        attempt += np.uint64(1)


@njit(nogil=True, cache=True)
def _permuted(key: np.uint64, x: int, count: int) -> int:
    """A permutation of 0..count-1: a Feistel network over the next even number of bits, walked until it lands
    inside."""
    half = np.uint64(1)
    while (np.int64(1) << np.int64(np.uint64(2) * half)) < count:
        half += np.uint64(1)
    mask = (np.uint64(1) << half) - np.uint64(1)
    y = np.uint64(x)
    while True:
        left, right = y >> half, y & mask
        for r in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (mix(key + np.uint64(r), right) & mask)
        y = left << half | right
        if y < np.uint64(count):
            return signed(y)


@njit(nogil=True, cache=True)
def bag_lengths(key: np.uint64, first: int, least: int, most: int, lengths_b: Int64s) -> None:
    for b in range(lengths_b.shape[0]):
        lengths_b[b] = least + signed(mix(key, np.uint64(first + b)) % np.uint64(most - least + 1))


@njit(nogil=True, cache=True)
def zipf_ids(
    key: np.uint64, first: int, count: int, s: float, spread: Int64s, offsets_b: Int64s, ids_n: Int64s
) -> None:
    """``spread`` (factor, shift) takes popular ranks apart: id = (rank * factor + shift) % count."""
    for b in range(offsets_b.shape[0] - 1):
        sample = mix(key, np.uint64(first + b))
        for n in range(offsets_b[b], offsets_b[b + 1]):
            rank = _zipf(mix(sample, np.uint64(n - offsets_b[b])), count, s)
            ids_n[n] = (rank * spread[0] + spread[1]) % count


@njit(nogil=True, cache=True)
def reuse_ids(
    key: np.uint64, truth_key: np.uint64, first: int, most: int, bins: Int64s, offsets_b: Int64s, ids_n: Int64s
) -> None:
    """``bins`` [3, bins]: accesses, used and universe of each reuse bin. Access number = position * ``most`` + place
    in the bag.

    A period's accesses, permuted, go through the bins in order, and round and round through the ids that a bin uses.
    """
    period = bins[0].sum()
    for b in range(offsets_b.shape[0] - 1):
        for n in range(offsets_b[b], offsets_b[b + 1]):
            access = (first + b) * most + n - offsets_b[b]
            turn = access // period
            at = _permuted(mix(key, np.uint64(turn)), access % period, period)
            i, base = 0, 0
            while at >= bins[0, i]:
                at -= bins[0, i]
                base += bins[2, i]
                i += 1
            begin = signed(mix(truth_key ^ np.uint64(i + 1), np.uint64(turn)) % np.uint64(bins[2, i]))
            ids_n[n] = base + (begin + at % bins[1, i]) % bins[2, i]


@njit(nogil=True, cache=True)
def draw_weights(key: np.uint64, first: int, offsets_b: Int64s, weights_n: Float32s) -> None:
    for b in range(offsets_b.shape[0] - 1):
        sample = mix(key, np.uint64(first + b))
        for n in range(offsets_b[b], offsets_b[b + 1]):
            weights_n[n] = np.float32(0.5 + unit(mix(sample, np.uint64(n - offsets_b[b]))))


@njit(nogil=True, cache=True)
def add_effects(key: np.uint64, offsets_b: Int64s, ids_n: Int64s, weights_n: Float32s, logits_b: Float64s) -> None:
    """Add to each logit the (weighted) mean hidden weight of its bag; a hidden weight has mean 0 and variance 1."""
    for b in range(logits_b.shape[0]):
        total = 0.0
        for n in range(offsets_b[b], offsets_b[b + 1]):
            hidden = (2.0 * unit(mix(key, np.uint64(ids_n[n]))) - 1.0) * ROOT_3
            total += hidden * (weights_n[n] if weights_n.shape[0] else 1.0)
        if offsets_b[b + 1] > offsets_b[b]:
            logits_b[b] += total / (offsets_b[b + 1] - offsets_b[b])


@njit(nogil=True, cache=True)
def draw_dense(key: np.uint64, truth_key: np.uint64, first: int, dense_bd: Float32s, logits_b: Float64s) -> None:
    """Dense columns, and what they add to the logits."""
    for b in range(dense_bd.shape[0]):
        sample = mix(key, np.uint64(first + b))
        for d in range(dense_bd.shape[1]):
            x = (2.0 * unit(mix(sample, np.uint64(d))) - 1.0) * ROOT_3
            dense_bd[b, d] = x
            logits_b[b] += x * (2.0 * unit(mix(truth_key, np.uint64(d))) - 1.0) * ROOT_3


@njit(nogil=True, cache=True)
def draw_labels(key: np.uint64, first: int, scale: float, bias: float, logits_b: Float64s, labels_b: Float32s) -> None:
    """1 with the probability that the logit says."""
    for b in range(logits_b.shape[0]):
        chance = 1.0 / (1.0 + math.exp(-(logits_b[b] * scale + bias)))
        labels_b[b] = 1.0 if unit(mix(key, np.uint64(first + b))) < chance else 0.0
