"""Admission: which ids of a step have rows of their own, decided purely from the ids of the steps before it.

Rules.

1. An id has a row in step s if it occurred at least ``after`` times in the steps before s, every place of every feature counted once.
   So the step that brings its count to ``after`` still answers it with the default row, and the next one that has it begins its row,
   with initial weights. Until it was updated nobody holds the row: eval, fetch and replica answer with the default row.
2. The default row is constant: its gradients are dropped, and counted.
3. Counts are exact for the first ids that ``bytes`` have room for (half of it, ``ID_BYTES`` each, growth included). Other ids are
   counted in a count-min sketch, which has the other half from the first of them on: it may admit an id early, never late. An id
   stays where it was first counted.
4. A row that has expired (``expiry``) is counted anew. Only what the sketch has counted of its id stays, so that may admit it early.

Steps are screened by ``dynamic``. Legend: u distinct ids of one table in a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cuda.plan import Int64s
from pipeline.rows.index import IdIndex
from pipeline.store import admission_kernels as kernels

ID_BYTES: Final = 64
DEPTH: Final = 4
"""Rows of a sketch."""
LEAST_BYTES: Final = 1 << 16
COUNTING: Final = "exact", "exact, then a count-min sketch of 4 rows (splitmix64)"


@dataclass(frozen=True, slots=True)
class AdmissionRule:
    """A row of its own behind ``after`` occurrences; ``max_bytes`` of memory to count them, ``LEAST_BYTES`` or more."""

    after: int
    max_bytes: int


class Counts:
    """How often each id of one table occurred. One thread at a time."""

    def __init__(self, rule: AdmissionRule) -> None:
        self.rule = rule
        self.most_ids = rule.max_bytes // 2 // ID_BYTES
        self._index = IdIndex()
        self._counts_p = np.zeros(self._index.capacity, dtype=np.uint32)
        self._cells_rw: npt.NDArray[np.uint32] | None = None
        self.default_lookups = 0
        self.admitted = 0

    def before(self, ids_u: Int64s) -> tuple[Int64s, Int64s]:
        """(positions of the ids that are counted exactly, or -1; counts), int64 [u]."""
        positions_u = self._index.find(ids_u)
        counts_u = np.where(positions_u >= 0, self._counts_p[positions_u], 0).astype(np.int64)
        others = np.flatnonzero(positions_u < 0)
        if self._cells_rw is not None and others.shape[0]:
            found = np.empty(others.shape[0], dtype=np.int64)
            kernels.estimate(self._cells_rw, ids_u[others], found)
            counts_u[others] = found
        return positions_u, counts_u

    def add(self, ids_u: Int64s, positions_u: Int64s, before_u: Int64s, times_u: Int64s) -> None:
        """Count distinct ids, ``times_u`` each; ``positions_u`` and ``before_u`` of ``before``."""
        # What the sketch knows nothing of it has not counted: where others were forgotten there is room again.
        exact = np.flatnonzero((positions_u < 0) & (before_u == 0))[: self.most_ids - self._index.count]
        in_sketch_u = positions_u < 0
        in_sketch_u[exact] = False
        if exact.shape[0]:
            positions_u = positions_u.copy()
            positions_u[exact] = self._index.insert(ids_u[exact])
            self._fit()
        known = np.flatnonzero(positions_u >= 0)
        at = positions_u[known]
        self._counts_p[at] = np.minimum(self._counts_p[at] + times_u[known], kernels.MOST).astype(np.uint32)
        others = np.flatnonzero(in_sketch_u)
        if others.shape[0]:
            kernels.add(self._sketch(), ids_u[others], times_u[others])

    def forget(self, ids_x: Int64s) -> None:
        """Count these ids, distinct ones, anew; but for what the sketch has of them."""
        positions_x = self._index.remove(ids_x)
        self._counts_p[positions_x[positions_x >= 0]] = 0

    def _fit(self) -> None:
        if self._counts_p.shape[0] < self._index.capacity:
            grown_p = np.zeros(self._index.capacity, dtype=np.uint32)
            grown_p[: self._counts_p.shape[0]] = self._counts_p
            self._counts_p = grown_p

    def _sketch(self) -> npt.NDArray[np.uint32]:
        if self._cells_rw is None:
            cells = self.rule.max_bytes // 2 // (4 * DEPTH)
            self._cells_rw = np.zeros((DEPTH, 1 << (cells.bit_length() - 1)), dtype=np.uint32)
        return self._cells_rw

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Copies."""
        ids, positions = self._index.items()
        arrays: dict[str, npt.NDArray[Any]] = {"ids": ids, "counts": self._counts_p[positions]}
        if self._cells_rw is not None:
            arrays["sketch"] = self._cells_rw.copy()
        return arrays | {"figures": np.array([self.default_lookups, self.admitted], dtype=np.int64)}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Into counts that are empty."""
        assert self._index.count == 0
        positions = self._index.insert(arrays["ids"])
        self._fit()
        self._counts_p[positions] = arrays["counts"]
        self._cells_rw = arrays.get("sketch")
        self.default_lookups, self.admitted = arrays["figures"].tolist()

    def figures(self) -> dict[str, Any]:
        return {
            "after": self.rule.after,
            "counting": COUNTING[self._cells_rw is not None],
            "exact_ids": self._index.count,
            "admitted": self.admitted,
            "default_lookups": self.default_lookups,
        }
