"""The tables of a replica: what is held now, and what views of earlier cuts see.

Rules.

1. One applier changes tables, in chunks of ``CHUNK_ROWS`` rows, each under the write lock (but see rule 4); readers hold the
   read lock for chunks too. So nobody waits longer than a chunk takes.
2. Before rows change, those that stand there go to the undo log. So in the middle of a cut every view, new ones
   included, reads the state before it; the swap of ``state`` ends that.
3. A row that is not held is answered from the initializer that the header describes: it was never updated; or from the
   header's default row, where the table has one.
4. A cut of at most ``WHOLE_ROWS`` rows, while no view is pinned, is applied under one hold of the write lock, the swap included:
   no view can be opened in its middle, so no old row is kept.

Legend: n ids of one call; d weights of a row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.replica import kernels
from pipeline.replica.errors import TableChanged, UnknownTable
from pipeline.replica.joined import JoinedCut
from pipeline.replica.locks import ReadWriteLock
from pipeline.replica.rowmap import Float32s, Int64s, RowMap
from pipeline.replica.staging import StagedRows
from pipeline.replica.undo import ABSENT, UndoLog
from pipeline.rows.arrays import read_only_ids
from pipeline.rows.initial import rule, table_key
from pipeline.rows.spec import TableSpec
from pipeline.wire.frames import START, CommitFrame, CutPosition, HeaderFrame

CHUNK_ROWS = 4096
READ_CHUNK_ROWS = 32768
WHOLE_ROWS = 16384
"""Written within about a millisecond."""


@dataclass(frozen=True, slots=True)
class State:
    """What a view pins. ``serial`` counts applied cuts; ``dense`` is never written."""

    serial: int = 0
    position: CutPosition = START
    step: int = 0
    clock_ns: int = 0
    dense: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


class Table:
    """One table as it is now."""

    def __init__(self, spec: TableSpec) -> None:
        self.spec = spec
        self.rows = RowMap(spec.dim)
        self._initial = (table_key(spec.seed, spec.name), *rule(spec.absent))

    def fill_initial(self, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s) -> None:
        """Rule 3, for the rows whose version is not above 0."""
        key, kind, base, scale, stored = self._initial
        kernels.fill_initial(key, read_only_ids(ids_n), kind, base, scale, stored, out_nd, versions_n)

    def describe(self) -> str:
        return f"dim {self.spec.dim}, seed {self.spec.seed}, {self.spec.absent.initializer}"


class Tables:
    """See the module docstring."""

    def __init__(self, pinned_bytes: int, wanted: frozenset[str] | None) -> None:
        self.lock = ReadWriteLock()
        self.undo = UndoLog(pinned_bytes)
        self.state = State()
        self.by_name: dict[str, Table] = {}
        self.lookups = 0
        """Rows read so far; readers may lose a count to one another."""
        self.settled = threading.Event()
        """Clear while a long cut is applied whose old rows found no room: then there is nothing whole to show."""
        self.settled.set()
        self._wanted = wanted

    def wants(self, name: str) -> bool:
        return self._wanted is None or name in self._wanted

    def table(self, name: str) -> Table:
        """Raises UnknownTable."""
        if name not in self.by_name:
            raise UnknownTable(name, self.by_name)
        return self.by_name[name]

    @property
    def num_rows(self) -> int:
        return sum(table.rows.count for table in self.by_name.values())

    def describe(self, where: str, header: HeaderFrame) -> None:
        """Make the tables that a header names.

        Raises TableChanged, and UnknownTable for a wanted one it does not name.
        """
        specs = {table.spec.name: table.spec for table in header.tables}
        for name in self._wanted or ():
            if name not in specs:
                raise UnknownTable(name, specs)
        made = {name: Table(spec) for name, spec in specs.items() if self.wants(name)}
        for name, table in made.items():
            old = self.by_name.get(name)
            if old is not None and old.describe() != table.describe():
                raise TableChanged(where, name, old.describe(), table.describe())
        with self.lock.write:
            self.by_name = made | self.by_name

    def apply(self, commit: CommitFrame, staged: JoinedCut) -> int:
        """Apply a whole, checked cut; returns how many rows were forgotten. What it raises leaves the tables torn."""
        if not commit.snapshot and staged.is_short(WHOLE_ROWS):
            whole = self._apply_at_once(commit, staged)
            if whole is not None:
                return whole
        forgotten, named = 0, {name: np.zeros(0, dtype=np.bool_) for name in self.by_name}
        with self.lock.write:
            self.undo.begin(self.state.serial)
        for part in staged.parts():
            table = self.by_name[part.table]
            for chunk in _chunks(part):
                positions_n = self._write(table, chunk)
                if commit.snapshot:
                    named[part.table] = _mark(named[part.table], positions_n)
            forgotten += self._forget(table, part.tombstones_m)
        if commit.snapshot:
            for name, table in self.by_name.items():
                forgotten += self._forget(table, _not_named(table.rows, named[name]))
        self._commit(commit, staged)
        return forgotten

    def _apply_at_once(self, commit: CommitFrame, staged: JoinedCut) -> int | None:
        """Rule 4; returns how many rows were forgotten. None, and nothing is done, while a view is pinned."""
        dense = staged.dense()
        with self.lock.write:
            if self.undo.num_pinned:
                return None
            self.undo.begin_closed(self.state.serial)
            self.settled.clear()  # for good, if writing fails
            forgotten = sum(self._replace(part) for part in staged.parts())
            self._show(commit, dense)
            self.undo.end()
        self.settled.set()
        return forgotten

    def _replace(self, part: StagedRows) -> int:
        """Write and forget rows; returns how many were forgotten. Under the write lock."""
        rows = self.by_name[part.table].rows
        rows.put_encoded(part.ids_n, part.encoded_nb, part.codec, part.versions_n)
        if not len(part.tombstones_m):
            return 0
        before = rows.count
        rows.remove(part.tombstones_m)
        return before - rows.count

    def read(self, state: State, name: str, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s) -> None:
        """Rows as they stood at ``state``, to ``out_nd`` [n, d]; and their versions (0: never updated) to ``versions_n`` [n], which
        is zeros before. Under the read lock, a chunk at most.
        """
        table = self.table(name)
        self.lookups += len(ids_n)
        table.rows.read_found(ids_n, out_nd, versions_n)
        self.undo.read_over(state.serial, name, ids_n, out_nd, versions_n)
        table.fill_initial(ids_n, out_nd, versions_n)

    def ids(self, state: State, name: str) -> Int64s:
        """Every id held at ``state``, rising. Under the read lock."""
        held = [self.table(name).rows.index.ids()]
        # All ids that any layer speaks of may be held or not: ask for their versions, as they stood.
        held += [layer.tables[name].index.ids() for layer in self.undo.layers if name in layer.tables]
        ids_n = read_only_ids(np.unique(np.concatenate(held)))
        if len(held) == 1:
            return ids_n
        weights_nd = np.empty((len(ids_n), self.table(name).spec.dim), dtype=np.float32)
        versions_n = np.zeros(len(ids_n), dtype=np.int64)
        self.read(state, name, ids_n, weights_nd, versions_n)
        return ids_n[versions_n > 0]

    def _write(self, table: Table, chunk: StagedRows) -> Int64s:
        with self.lock.write:
            self._save(table, chunk.ids_n)
            return table.rows.put_encoded(chunk.ids_n, chunk.encoded_nb, chunk.codec, chunk.versions_n)

    def _forget(self, table: Table, ids_m: Int64s) -> int:
        before = table.rows.count
        for start in range(0, len(ids_m), CHUNK_ROWS):
            ids_n = read_only_ids(ids_m[start : start + CHUNK_ROWS])
            with self.lock.write:
                self._save(table, ids_n)
                table.rows.remove(ids_n)
        return before - table.rows.count

    def _save(self, table: Table, ids_n: Int64s) -> None:
        if not self.undo.is_open:
            return
        weights_nd = np.empty((len(ids_n), table.spec.dim), dtype=np.float32)
        versions_n = np.full(len(ids_n), ABSENT, dtype=np.int64)
        table.rows.read_found(ids_n, weights_nd, versions_n)
        self.undo.save(table.spec.name, ids_n, weights_nd, versions_n)
        if not self.undo.is_open:
            self.settled.clear()

    def _commit(self, commit: CommitFrame, staged: JoinedCut) -> None:
        dense = staged.dense()
        with self.lock.write:
            if dense is not None:
                self.undo.save_dense(self.state.dense)
            self._show(commit, dense)
            self.undo.end()
        self.settled.set()

    def _show(self, commit: CommitFrame, dense: Mapping[str, npt.NDArray[Any]] | None) -> None:
        """From here on new views see the cut. Under the write lock."""
        old = self.state
        now = old.dense if dense is None else dense
        self.state = State(old.serial + 1, commit.position, commit.step, commit.clock_ns, now)


def _chunks(part: StagedRows) -> Iterator[StagedRows]:
    for start in range(0, len(part.ids_n), CHUNK_ROWS):
        end = start + CHUNK_ROWS
        yield StagedRows(
            part.table,
            part.ids_n[start:end],
            part.encoded_nb[start:end],
            part.versions_n[start:end],
            part.tombstones_m[:0],
            part.codec,
        )


def _mark(named_p: npt.NDArray[np.bool_], positions_n: Int64s) -> npt.NDArray[np.bool_]:
    """Set ``named_p`` at positions; it grows by doubling."""
    size = int(positions_n.max(initial=-1)) + 1
    if size > len(named_p):
        named_p = np.concatenate([named_p, np.zeros(max(size - len(named_p), len(named_p)), dtype=np.bool_)])
    named_p[positions_n] = True
    return named_p


def _not_named(rows: RowMap, named_p: npt.NDArray[np.bool_]) -> Int64s:
    """Ids held at positions that were not marked."""
    ids_n, positions_n = rows.index.items()
    known = positions_n < len(named_p)
    kept = np.zeros(len(ids_n), dtype=np.bool_)
    kept[known] = named_p[positions_n[known]]
    return ids_n[~kept]
