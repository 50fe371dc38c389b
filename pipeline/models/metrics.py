"""Log loss and AUC of a stream of batches, in bounded memory.

Log loss is exact (each term and the sums in float64). AUC counts samples in buckets of logits: a bucket is the first 22
bits of the float32 logit (sign, exponent, 13 bits of mantissa), so two logits share one only when they differ by less
than 1 part in 8192. Logits in one bucket count as ties, one half each. So the AUC is off by at most ``auc_error``: half
the share of (positive, negative) pairs that fall into one bucket. Buckets live in pages of 1024 that are made when
first hit: 16 KiB each, 4096 at most, 64 MiB in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.models.metrics_kernels import KEY_BITS as _KEY_BITS
from pipeline.models.metrics_kernels import PAGE_BITS as _PAGE_BITS
from pipeline.models.metrics_kernels import count_into, score

_NUM_PAGES = 1 << (_KEY_BITS - _PAGE_BITS)
_PAGE = 1 << _PAGE_BITS


class BinaryMetrics:
    """Add batches, read ``log_loss``, ``auc``, ``count`` at any time. Not for two threads at once."""

    def __init__(self) -> None:
        self.count = 0
        self._loss_sum = 0.0
        self._page_of = np.full(_NUM_PAGES, -1, dtype=np.int64)
        self._counts = np.zeros((0, _PAGE, 2), dtype=np.int64)

    def add(self, logits_b: npt.NDArray[np.float32], labels_b: npt.NDArray[np.float32]) -> None:
        """Count one batch, float32 [B] each. Raises ValueError for a label that is not 0 or 1, and for NaN."""
        if logits_b.shape != labels_b.shape or logits_b.ndim != 1:
            raise ValueError(f"logits and labels are [B] both, got {logits_b.shape} and {labels_b.shape}")
        logits_b, labels_b = np.ascontiguousarray(logits_b), np.ascontiguousarray(labels_b)
        keys_b = np.empty(logits_b.shape[0], dtype=np.int64)
        loss, wrong = score(logits_b, labels_b, keys_b)
        if wrong >= 0:
            raise ValueError(f"labels are 0 or 1, got {labels_b[wrong]}")
        if math.isnan(loss):
            raise ValueError("a logit is NaN")
        self._loss_sum += loss
        self.count += int(logits_b.shape[0])
        if count_into(keys_b, labels_b, self._page_of, self._counts):
            return
        self._count(keys_b, labels_b.astype(np.int64), np.int64(1))

    @property
    def log_loss(self) -> float:
        """Mean log loss in nats, NaN before the first sample."""
        return self._loss_sum / self.count if self.count else math.nan

    @property
    def auc(self) -> float:
        """Area under the ROC curve, NaN until both labels were seen."""
        positives, negatives = self._sorted()
        pairs = float(positives.sum()) * float(negatives.sum())
        below = np.cumsum(negatives) - 0.5 * negatives
        return float(np.dot(positives, below)) / pairs if pairs else math.nan

    @property
    def auc_error(self) -> float:
        """The exact AUC of these logits is within ``auc`` +- this."""
        positives, negatives = self._sorted()
        pairs = float(positives.sum()) * float(negatives.sum())
        return 0.5 * float(np.dot(positives, negatives)) / pairs if pairs else math.nan

    def state(self) -> dict[str, Any]:
        """Plain values (what msgpack carries) from which ``restore`` goes on exactly."""
        pages = np.nonzero(self._page_of >= 0)[0]
        counts = self._counts[self._page_of[pages]]
        page_m, cell_m, label_m = np.nonzero(counts)
        keys = (pages[page_m] << _PAGE_BITS | cell_m) << 1 | label_m
        return {
            "count": self.count,
            "loss_sum": self._loss_sum,
            "keys": keys.astype("<i8").tobytes(),
            "counts": counts[page_m, cell_m, label_m].astype("<i8").tobytes(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become the metrics that gave ``state``."""
        self.__init__()  # type: ignore[misc]
        self.count, self._loss_sum = int(state["count"]), float(state["loss_sum"])
        keys, counts = np.frombuffer(state["keys"], "<i8"), np.frombuffer(state["counts"], "<i8")
        self._count(keys >> 1, keys & 1, counts)

    def _count(self, keys_m: npt.NDArray[np.int64], labels_m: npt.NDArray[np.int64], amounts: Any) -> None:
        pages_m = keys_m >> _PAGE_BITS
        missing = np.unique(pages_m[self._page_of[pages_m] < 0])
        if missing.size:
            self._page_of[missing] = np.arange(missing.size) + self._counts.shape[0]
            self._counts = np.concatenate([self._counts, np.zeros((missing.size, _PAGE, 2), dtype=np.int64)])
        cells_m = (self._page_of[pages_m] << _PAGE_BITS | keys_m & (_PAGE - 1)) << 1 | labels_m
        np.add.at(self._counts.reshape(-1), cells_m, amounts)

    def _sorted(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(positives, negatives) per bucket, by rising logit."""
        pages = self._page_of[self._page_of >= 0]
        counts = self._counts[pages].reshape(-1, 2).astype(np.float64)
        return counts[:, 1], counts[:, 0]
