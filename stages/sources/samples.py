"""Samples in columns, and the few things that are done to them: cut, put together, put in another order.

B is a number of samples, n of ids. Arrays are C-contiguous and never written to once they are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.items import FeatureIds, Float32s, Int64s, RawBatch


@dataclass(frozen=True, slots=True)
class Samples:
    """``times_b`` is int64 [B], or None when the log has no time."""

    num_samples: int
    features: Mapping[str, FeatureIds]
    dense_bd: Float32s
    labels_b: Float32s
    times_b: Int64s | None = None

    @property
    def nbytes(self) -> int:
        return sum(bags.nbytes for bags in self.features.values()) + self.dense_bd.nbytes + self.labels_b.nbytes

    @staticmethod
    def of(batch: RawBatch) -> Samples:
        return Samples(batch.num_samples, batch.features, batch.dense_bd, batch.labels_b)

    def cut(self, start: int, stop: int) -> Samples:
        """Samples start..stop-1; shares memory where it can."""
        if start == 0 and stop == self.num_samples:
            return self
        return Samples(
            num_samples=stop - start,
            features={name: cut_bags(bags, start, stop) for name, bags in self.features.items()},
            dense_bd=self.dense_bd[start:stop],
            labels_b=self.labels_b[start:stop],
            times_b=None if self.times_b is None else self.times_b[start:stop],
        )

    def take(self, order_b: Int64s) -> Samples:
        """Copies of the samples ``order_b``, in that order; repeats are allowed."""
        return Samples(
            num_samples=len(order_b),
            features={name: take_bags(bags, order_b) for name, bags in self.features.items()},
            dense_bd=self.dense_bd[order_b],
            labels_b=self.labels_b[order_b],
            times_b=None if self.times_b is None else self.times_b[order_b],
        )


def cut_bags(bags: FeatureIds, start: int, stop: int) -> FeatureIds:
    offsets_b = bags.offsets_b[start : stop + 1]
    first, last = int(offsets_b[0]), int(offsets_b[-1])
    beside = (None if part is None else part[first:last] for part in bags.beside)
    return FeatureIds(bags.ids_n[first:last], offsets_b - first, *beside)


def take_bags(bags: FeatureIds, order_b: Int64s) -> FeatureIds:
    lengths_b = np.diff(bags.offsets_b)[order_b]
    offsets_b = offsets_of(lengths_b)
    index_n = np.repeat(bags.offsets_b[order_b] - offsets_b[:-1], lengths_b) + np.arange(offsets_b[-1])
    beside = (None if part is None else part[index_n] for part in bags.beside)
    return FeatureIds(bags.ids_n[index_n], offsets_b, *beside)


def offsets_of(lengths_b: Int64s) -> Int64s:
    """int64 [B] lengths -> int64 [B + 1] offsets."""
    offsets_b = np.zeros(len(lengths_b) + 1, dtype=np.int64)
    np.cumsum(lengths_b, out=offsets_b[1:])
    return offsets_b


def join_bags(parts: Sequence[FeatureIds]) -> FeatureIds:
    ends = np.cumsum([part.offsets_b[-1] for part in parts])[:-1]
    shifted = [parts[0].offsets_b, *(part.offsets_b[1:] + end for part, end in zip(parts[1:], ends, strict=True))]
    beside = (
        np.concatenate([part for part in alike if part is not None]) if alike[0] is not None else None
        for alike in zip(*(part.beside for part in parts), strict=True)
    )
    return FeatureIds(np.concatenate([part.ids_n for part in parts]), np.concatenate(shifted), *beside)


def join(parts: Sequence[Samples]) -> Samples:
    """One after the other. All parts have the same features, and the same beside their ids; at least one part is given."""
    if len(parts) == 1:
        return parts[0]
    times = [part.times_b for part in parts if part.times_b is not None]
    return Samples(
        num_samples=sum(part.num_samples for part in parts),
        features={name: join_bags([part.features[name] for part in parts]) for name in parts[0].features},
        dense_bd=np.concatenate([part.dense_bd for part in parts]),
        labels_b=np.concatenate([part.labels_b for part in parts]),
        times_b=np.concatenate(times) if times else None,
    )
