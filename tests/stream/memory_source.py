"""A RowSource over plain dictionaries, and its whole history: what a stream of it must say.

Training here is ``step()``. A snapshot remembers nothing itself: it reads the history of its step, as a store's snapshot does.
``on_read`` lets a test train while a cut is being read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.rows.codec import find_codec
from pipeline.rows.digest import rows_digest
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.room import MakeRoom, RowRoom
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.rows.version import pack_version
from pipeline.stream.errors import SnapshotLost
from pipeline.wire import StreamedTable

Int64s = npt.NDArray[np.int64]
Result = TypeVar("Result")
Tables = dict[str, dict[int, tuple[bytes, int]]]
"""table -> id -> (bytes of the weights, packed version)"""


def spec(name: str, dim: int, *states: Column) -> TableSpec:
    return TableSpec(name, RowLayout((Column("weight", "float32", dim, "weight"), *states)), Initializer(), 7)


SPECS = (
    spec("users", 3, Column("momentum", "float32", 1, "state")),
    spec("items", 8),
)


@dataclass(frozen=True, slots=True)
class Read:
    rows_nb: npt.NDArray[np.uint8]
    versions_n: Int64s
    held_n: npt.NDArray[np.bool_]


@dataclass
class MemorySnapshot:
    source: MemorySource
    step: int
    state: Tables
    since: int = -1
    """Packed version behind which rows are listed."""
    closed: bool = False

    def ids(self, table: str) -> Int64s:
        return np.array(sorted(k for k, row in self.state[table].items() if row[1] > self.since), dtype=np.int64)

    def read(self, ids: Mapping[str, Int64s]) -> Read:
        assert not self.closed, "read after close"
        self.source.on_read()
        if self.source.lost_reads > 0 and self.source.reads_before_loss > 0:
            self.source.reads_before_loss -= 1
        elif self.source.lost_reads > 0:
            self.source.lost_reads -= 1
            raise SnapshotLost("no room for the rows of this snapshot")
        found = [self.state[table].get(row_id) for table, ids_n in ids.items() for row_id in ids_n.tolist()]
        longest = max(layout.row_bytes for layout in self.source.layouts.values())
        rows_nb = np.full((len(found), longest + 16), 0xAB, dtype=np.uint8)
        for n, row in enumerate(found):
            if row is not None:
                rows_nb[n, : len(row[0])] = np.frombuffer(row[0], dtype=np.uint8)
        versions_n = np.array([0 if row is None else row[1] for row in found], dtype=np.int64)
        return Read(rows_nb, versions_n, np.array([row is not None for row in found], dtype=np.bool_))

    def encode(self, tables: Sequence[str], groups: tuple[Int64s, Int64s], make_room: MakeRoom) -> int | None:
        """Now and then, and only where all rows are held, as a store does it while nothing disturbs. Its order is not that of the ids."""
        assert not self.closed, "encoded after close"
        ids_m, starts_gt = groups
        asked = [
            np.unique(np.concatenate([ids_m[starts_t[t] : starts_t[t + 1]] for starts_t in starts_gt]))[::-1]
            for t in range(len(tables))
        ]
        held = all(
            row_id in self.state[name] for name, ids in zip(tables, asked, strict=True) for row_id in ids.tolist()
        )
        if not held or not self.source.encodes or self.source.lost_reads:
            return None
        room = make_room(np.array([len(ids) for ids in asked], dtype=np.int64))
        return None if room is None else self._fill(dict(zip(tables, asked, strict=True)), room)

    def _fill(self, asked: Mapping[str, Int64s], room: RowRoom) -> int:
        codec, total = find_codec(self.source.codec), 0
        ids_at, rows_at, versions_at = room.ids_at, room.rows_at, room.versions_at
        for name, ids in asked.items():
            for row_id in ids.tolist():
                weights, version = self.state[name][row_id]
                encoded = codec.encode(np.frombuffer(weights, dtype=np.float32)[None])
                decoded = codec.decode(encoded, len(weights) // 4)
                one = np.array([row_id]), decoded.view(np.uint8), np.array([version])
                total += rows_digest(name, *one)
                for at, data in ((ids_at, one[0]), (rows_at, encoded), (versions_at, one[2])):
                    room.content_b[at : at + data.nbytes] = data.reshape(-1).view(np.uint8)
                ids_at, rows_at, versions_at = ids_at + 8, rows_at + encoded.nbytes, versions_at + 8
        self.source.on_read()
        return total

    def close(self) -> None:
        self.closed = True


@dataclass
class MemorySource:
    """See the module docstring. Safe to share by threads, but for the hooks."""

    specs: Sequence[TableSpec] = SPECS
    codec: str = "fp32"
    generation: int = 1
    seed: int = 0
    step: int = 0
    lists_changes: bool = False
    """It says itself which rows changed: for tests that forget no row."""
    encodes: bool = False
    """Snapshots encode their rows themselves, where they can."""
    lost_reads: int = 0
    """So many reads of snapshots will be lost, after ``reads_before_loss`` that are not."""
    reads_before_loss: int = 0
    on_read: Callable[[], object] = lambda: None
    on_step: Callable[[int, Mapping[str, Int64s]], object] = lambda _step, _ids: None
    snapshots: list[MemorySnapshot] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.layouts = {one.name: one.layout for one in self.specs}
        self.history: dict[int, Tables] = {self.step: {one.name: {} for one in self.specs}}
        self.dense_history: dict[int, dict[str, npt.NDArray[Any]]] = {self.step: self._new_dense()}
        self.in_fence = False
        self.fence = threading.RLock()

    @property
    def tables(self) -> Sequence[StreamedTable]:
        return [StreamedTable(one, self.codec) for one in self.specs]

    @property
    def state(self) -> Tables:
        return self.history[self.step]

    def train(self, ids: Mapping[str, Sequence[int]], forget: Mapping[str, Sequence[int]] | None = None) -> None:
        """One step: new weights for ``ids``, and no row any more for ``forget``."""
        with self.fence:
            self._train(ids, forget or {})

    def _train(self, ids: Mapping[str, Sequence[int]], forget: Mapping[str, Sequence[int]]) -> None:
        tables = {name: dict(rows) for name, rows in self.state.items()}
        self.step += 1
        changed: dict[str, Int64s] = {}
        for name in tables:
            chosen, gone = sorted(set(ids.get(name, ()))), sorted(set(forget.get(name, ())))
            for row_id in chosen:
                tables[name][row_id] = (self._weights(name), pack_version(self.generation, self.step))
            for row_id in gone:
                tables[name].pop(row_id, None)
            changed[name] = np.array(sorted({*chosen, *gone}), dtype=np.int64)
        self.history[self.step] = tables
        self.dense_history[self.step] = self._new_dense()
        self.on_step(self.step, changed)

    def _weights(self, name: str) -> bytes:
        weights = self.rng.standard_normal(self.layouts[name].dim).astype(np.float32)
        return weights.tobytes()

    def _new_dense(self) -> dict[str, npt.NDArray[Any]]:
        return {"mlp.0": self.rng.standard_normal((5, 4)), "mlp.1": self.rng.integers(0, 9, 7)}

    def at_fence(self, call: Callable[[int], Result]) -> Result:
        with self.fence:
            self.in_fence = True
            try:
                return call(self.step)
            finally:
                self.in_fence = False

    def freeze(self, changed: Any, *, changed_since: int) -> MemorySnapshot:
        assert self.in_fence, "frozen outside the fence"
        assert changed != "changed" or self.lists_changes, "asked for what it cannot list"
        if not isinstance(changed, str):
            for name, pieces in changed().items():
                for row_id in np.concatenate(pieces).tolist():
                    row = self.state[name].get(row_id)
                    assert row is None or row[1] > pack_version(self.generation, changed_since)
        since = pack_version(self.generation, changed_since) if changed == "changed" else -1
        snapshot = MemorySnapshot(self, self.step, self.history[self.step], since)
        self.snapshots.append(snapshot)
        return snapshot

    def dense(self) -> dict[str, npt.NDArray[Any]]:
        assert self.in_fence, "dense weights copied outside the fence"
        return {name: values.copy() for name, values in self.dense_history[self.step].items()}
