"""The tables of a replica: what is held now, and what views of earlier cuts see.

Rules.

1. One applier changes tables, in chunks of ``CHUNK_ROWS`` rows: it writes them where nobody reads, and shows them under the
   write lock (but see rule 4); readers hold the read lock for chunks too. So nobody waits longer than showing a chunk takes.
2. Rows that are replaced go to the undo log. So in the middle of a cut every view, new ones included, reads the state
   before it; the swap of ``state`` ends that.
3. A row that is not held is answered from the initializer that the header describes: it was never updated; or from the
   header's default row, where the table has one.
4. A cut of at most ``WHOLE_ROWS`` rows, while no view is pinned, is shown under one hold of the write lock, the swap included:
   no view can be opened in its middle, so no old row is kept, but for views that were opened while it was written.

Legend: n ids of one call; d weights of a row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.replica.carried import Carried
from pipeline.replica.cuts import Applied, Cut, StagedRows, State
from pipeline.replica.errors import TableChanged, UnknownTable
from pipeline.replica.locks import ReadWriteLock
from pipeline.replica.rowmap import Float32s, Int64s, RowBytes
from pipeline.replica.table import MakeRows, OldRows, Table, rows_in_memory
from pipeline.replica.undo import UndoLog
from pipeline.replica.view import View
from pipeline.rows.arrays import read_only_ids
from pipeline.wire.frames import HeaderFrame

CHUNK_ROWS = 4096
WHOLE_ROWS = 16384
"""Written within about a millisecond."""


class Tables:
    """See the module docstring."""

    def __init__(self, pinned_bytes: int, wanted: frozenset[str] | None, make_rows: MakeRows = rows_in_memory) -> None:
        self.lock = ReadWriteLock()
        self.undo = UndoLog(pinned_bytes)
        self.state = State()
        self.by_name: dict[str, Table] = {}
        self.lookups = 0
        """Rows read so far; readers may lose a count to one another."""
        self.settled = threading.Event()
        """Clear while a long cut is applied whose old rows found no room: then there is nothing whole to show."""
        self.settled.set()
        self._wanted, self._make_rows = wanted, make_rows

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.by_name)

    def wants(self, name: str) -> bool:
        return self._wanted is None or name in self._wanted

    def table(self, name: str) -> Table:
        """Raises UnknownTable."""
        if name not in self.by_name:
            raise UnknownTable(name, self.by_name)
        return self.by_name[name]

    @property
    def notice(self) -> str | None:
        return None

    @property
    def pinned_views(self) -> int:
        return self.undo.num_pinned

    @property
    def expired_views(self) -> int:
        return self.undo.expired

    @property
    def num_rows(self) -> int:
        return sum(table.rows.count for table in self.by_name.values())

    def describe(self, where: str, header: HeaderFrame) -> None:
        """Make the tables that a header names.

        Raises TableChanged, and UnknownTable for a wanted one it does not name.
        """
        streamed = {table.spec.name: table for table in header.tables}
        for name in self._wanted or ():
            if name not in streamed:
                raise UnknownTable(name, streamed)
        made = {}
        for name, found in streamed.items():
            if self.wants(name):
                carried, old = Carried(found.spec, found.carries), self.by_name.get(name)
                # Rows that are held stay: only what would be made of them is compared.
                table = Table(found.spec, carried, self._make_rows(found.spec, carried) if old is None else old.rows)
                if old is not None and old.describe() != table.describe():
                    raise TableChanged(where, name, old.describe(), table.describe())
                made[name] = table
        with self.lock.write:
            self.by_name = made | self.by_name

    def open_view(self, check: Callable[[], None]) -> View:
        """Pin what is shown now; ``check`` raises where nothing may be read any more."""
        while True:
            with self.lock.write:
                check()
                if self.undo.is_open:
                    view = View(self, self.state, check)
                    self.undo.pin(self.state.serial, view)
                    return view
            self.settled.wait()

    def fail(self) -> None:
        """See ``Held``."""
        self.settled.set()

    def restore(self) -> Applied | None:
        """Rows in memory have no earlier life."""
        return None

    def keep(self, cut: Cut) -> None:
        """Nothing of them outlives the process."""

    def commit(self) -> Applied | None:
        return None

    def close(self) -> None:
        """See ``Held``."""

    def apply(self, cut: Cut) -> int:
        """Apply a whole, checked cut; returns how many rows were forgotten. What it raises leaves the tables torn."""
        short = not cut.snapshot and cut.num_ids is not None and cut.num_ids <= WHOLE_ROWS
        if short and not self.undo.num_pinned:
            return self._apply_at_once(cut)
        forgotten = 0
        named = {name: table.rows.naming() for name, table in self.by_name.items()} if cut.snapshot else {}
        with self.lock.write:
            self.undo.begin(self.state.serial)
        for part in cut.parts():
            table = self.by_name[part.table]
            for chunk in part.chunks(CHUNK_ROWS):
                positions_n = self._write(table, chunk)
                if cut.snapshot:
                    named[part.table].add(chunk.ids_n, positions_n)
            forgotten += self._forget(table, part.tombstones_m)
        for name, some in named.items():
            forgotten += self._forget(self.by_name[name], some.others())
        with self.lock.write:
            self._show(cut)
            self.undo.end()
        self.settled.set()
        return forgotten

    def _apply_at_once(self, cut: Cut) -> int:
        """Rule 4; returns how many rows were forgotten."""
        parts = [(self.by_name[part.table], part.tombstones_m, self._place(part)) for part in cut.parts()]
        forgotten = 0
        with self.lock.write:
            begin = self.undo.begin if self.undo.num_pinned else self.undo.begin_closed
            begin(self.state.serial)
            self.settled.clear()  # for good, if one of them fails
            for table, tombstones_m, placed in parts:
                table.rows.show(placed, self._old(table))
                forgotten += self._remove(table, tombstones_m)
            self._show(cut)
            self.undo.end()
        self.settled.set()
        return forgotten

    def read(
        self,
        state: State,
        name: str,
        ids_n: Int64s,
        out_nd: Float32s,
        versions_n: Int64s,
        extra_nx: RowBytes | None = None,
    ) -> None:
        """Rows as they stood at ``state``, to ``out_nd`` [n, d]; their versions (0: never updated) to ``versions_n`` [n], which
        is zeros before; and what lies beside the weights to ``extra_nx``, zeros before. Under the read lock, a chunk at most.
        """
        table = self.table(name)
        self.lookups += len(ids_n)
        table.rows.read_found(ids_n, out_nd, versions_n, extra_nx)
        self.undo.read_over(state.serial, name, ids_n, out_nd, versions_n, extra_nx)
        table.fill_initial(ids_n, out_nd, versions_n)

    def ids(self, state: State, name: str) -> Int64s:
        """Every id held at ``state``, rising. Under the read lock."""
        held = [self.table(name).rows.ids()]
        # All ids that any layer speaks of may be held or not: ask for their versions, as they stood.
        held += [layer.tables[name].ids() for layer in self.undo.layers if name in layer.tables]
        ids_n = read_only_ids(np.unique(np.concatenate(held)))
        if len(held) == 1:
            return ids_n
        weights_nd = np.empty((len(ids_n), self.table(name).spec.dim), dtype=np.float32)
        versions_n = np.zeros(len(ids_n), dtype=np.int64)
        self.read(state, name, ids_n, weights_nd, versions_n)
        return ids_n[versions_n > 0]

    def _place(self, rows: StagedRows) -> Any:
        return self.by_name[rows.table].rows.place(rows)

    def _write(self, table: Table, chunk: StagedRows) -> Int64s:
        placed = self._place(chunk)
        with self.lock.write:
            places_n = table.rows.show(placed, self._old(table))
            self._bound()
        return places_n

    def _forget(self, table: Table, ids_m: Int64s) -> int:
        forgotten = 0
        for start in range(0, len(ids_m), CHUNK_ROWS):
            with self.lock.write:
                forgotten += self._remove(table, read_only_ids(ids_m[start : start + CHUNK_ROWS]))
                self._bound()
        return forgotten

    def _remove(self, table: Table, ids_n: Int64s) -> int:
        """Returns how many of them were held. Under the write lock."""
        before = table.rows.count
        if len(ids_n):
            table.rows.remove(ids_n, self._old(table))
        return before - table.rows.count

    def _old(self, table: Table) -> OldRows | None:
        return self.undo.old_rows(table.spec.name, table.rows.old_rows)

    def _bound(self) -> None:
        self.undo.bound()
        if not self.undo.is_open:
            self.settled.clear()

    def _show(self, cut: Cut) -> None:
        """From here on new views see the cut. Under the write lock."""
        if cut.dense is not None:
            self.undo.save_dense(self.state.dense)
        old = self.state
        self.state = State(old.serial + 1, cut.applied, old.dense if cut.dense is None else cut.dense)
