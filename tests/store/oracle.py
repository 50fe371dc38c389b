"""A plain dict beside a store: what every row was at every step's end, computed one id at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cuda.plan import NONE, BatchIds
from pipeline.rows.initial import initial_rows
from pipeline.rows.spec import TableSpec

Key = tuple[int, int]
"""(table, id)"""
Float32s = npt.NDArray[np.float32]


class Oracle:
    """Rows updated by SGD with a learning rate of 1 and small whole gradients, which numpy computes to the same bits."""

    def __init__(self, specs: Sequence[TableSpec]) -> None:
        self.specs = specs
        self._initial: dict[Key, bytes] = {}
        self._history: dict[Key, list[tuple[int, int, bytes]]] = {}
        """(step, step of the version then, packed row): what each step made of a row, the newest last.

        Appended to by the thread that trains; others only look up steps that have ended.
        """

    def at(self, key: Key, step: int) -> tuple[int, bytes]:
        """(step of the last update, packed row) as they stood when ``step`` had ended; step 0: the initial row."""
        entries = self._history.get(key, [])
        found = bisect_right(entries, step, key=lambda entry: entry[0])
        return entries[found - 1][1:] if found else (0, self._first(key))

    def end(self, step: int, keys: Sequence[Key]) -> None:
        """These rows end with ``step``. Before the store ends them."""
        for key in keys:
            self._history.setdefault(key, []).append((step, 0, self._first(key)))

    def forget_after(self, step: int) -> None:
        """Steps after ``step`` never were."""
        for key, entries in list(self._history.items()):
            self._history[key] = [entry for entry in entries if entry[0] <= step]

    def _first(self, key: Key) -> bytes:
        if key not in self._initial:
            self._initial[key] = initial_rows(self.specs[key[0]], np.array([key[1]], dtype=np.int64))[0].tobytes()
        return self._initial[key]

    def weights(self, key: Key, step: int) -> Float32s:
        spec = self.specs[key[0]]
        row = np.frombuffer(self.at(key, step)[1], dtype=np.uint8)[None].copy()
        weights: Float32s = spec.layout.view(row, "weight")[0]
        return weights

    def ids(self, table: int, after: int, step: int) -> list[int]:
        """Sorted ids whose last update, as of ``step``, came after step ``after``."""
        keys = [key for key in list(self._history) if key[0] == table]
        return sorted(key[1] for key in keys if self.at(key, step)[0] > after)

    def train(self, step: int, batch: BatchIds, grads: Sequence[Float32s]) -> None:
        """Enter what ``step`` makes of the rows of its batch. Before the store does it."""
        sums: dict[Key, Float32s] = {}
        for key, grad in self._gradients(batch, grads):
            sums[key] = sums[key] + grad if key in sums else grad.copy()
        for key, grad in sums.items():
            row = np.frombuffer(self.at(key, step - 1)[1], dtype=np.uint8)[None].copy()
            self.specs[key[0]].layout.view(row, "weight")[0] -= grad
            self._history.setdefault(key, []).append((step, step, row.tobytes()))

    def load(self, step: int, table: int, ids_n: npt.NDArray[np.int64], weights_nd: Float32s) -> None:
        """Enter what ``step`` overwrites. Before the store does it."""
        layout = self.specs[table].layout
        for row_id, weights_d in zip(ids_n.tolist(), weights_nd, strict=True):
            row = layout.empty(1)
            layout.view(row, "weight")[0] = weights_d
            self._history.setdefault((table, row_id), []).append((step, step, row.tobytes()))

    def _gradients(self, batch: BatchIds, grads: Sequence[Float32s]) -> list[tuple[Key, Float32s]]:
        found = []
        for f, table in enumerate(batch.features.tables_f.tolist()):
            first = int(batch.feature_start_f[f])
            for b in range(batch.num_samples):
                for n in range(int(batch.offsets_fb[f, b]), int(batch.offsets_fb[f, b + 1])):
                    row = n - first if batch.features.poolings_f[f] == NONE else b
                    found.append(((table, int(batch.ids_n[n])), grads[f][row]))
        return found

    def pooled(self, batch: BatchIds, step: int) -> list[Float32s]:
        """What a lookup returns when ``step`` was the last to end: sum or none, without weights."""
        outs = []
        for f, table in enumerate(batch.features.tables_f.tolist()):
            bags = defaultdict(list)
            for b in range(batch.num_samples):
                for n in range(int(batch.offsets_fb[f, b]), int(batch.offsets_fb[f, b + 1])):
                    bags[b].append(self.weights((table, int(batch.ids_n[n])), step))
            outs.append(_pool(bags, batch.num_samples, int(batch.features.dims_f[f]), batch.features.poolings_f[f]))
        return outs


def _pool(bags: Mapping[int, list[Float32s]], samples: int, dim: int, pooling: int) -> Float32s:
    if pooling == NONE:
        rows = [row for b in range(samples) for row in bags.get(b, [])]
        return np.array(rows, dtype=np.float32).reshape(len(rows), dim)
    out = np.zeros((samples, dim), dtype=np.float32)
    for b, rows in bags.items():
        total = rows[0].copy()
        for row in rows[1:]:
            total += row
        out[b] = total
    return out
