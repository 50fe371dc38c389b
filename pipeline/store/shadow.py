"""The shadow of one snapshot: the rows that were overwritten since it was taken, as they were.

Rules.

1. The compute lane adds the rows of a step in one piece before it writes them: it appends to a list and nothing more.
   Readers build the index, each time they look, of what was added since.
2. A row is added at most once: afterwards its version is above the snapshot's.
3. What does not fit in memory goes to the spill file; what fits nowhere is refused, and the snapshot is given up or
   training held.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.rows.index import IdIndex
from pipeline.store.row_blocks import RowBytes, fetch

if TYPE_CHECKING:
    from cuda.plan import Int32s, Int64s
    from pipeline.store.spill import SpillFile

ROW_OVERHEAD_BYTES: Final = 64
"""Id, table, version, place and index entry of a saved row. In memory; those of spilled rows count as spilled, so that
a full memory does not stop them. That keeps memory bounded all the same: by both bounds together."""
BLOCK_SHIFT: Final = 32
NO_BASES: Final = np.empty(0, dtype=np.int64)


class ShadowRoom:
    """Memory and disk for the shadows of all open snapshots."""

    def __init__(self, memory_bytes: int, spill_bytes: int) -> None:
        self._freed = threading.Condition()
        self.times_freed = 0
        self.max_memory_bytes, self.max_spill_bytes = memory_bytes, spill_bytes
        self.memory_bytes = self.spill_bytes = 0

    def take(self, memory_bytes: int, spill_bytes: int) -> bool:
        """Take both, or neither when either does not fit."""
        with self._freed:
            fits = self.memory_bytes + memory_bytes <= self.max_memory_bytes
            fits = fits and self.spill_bytes + spill_bytes <= self.max_spill_bytes
            if fits:
                self.memory_bytes += memory_bytes
                self.spill_bytes += spill_bytes
            return fits

    def give_back(self, memory_bytes: int, spill_bytes: int) -> None:
        with self._freed:
            self.memory_bytes -= memory_bytes
            self.spill_bytes -= spill_bytes
            self.times_freed += 1
            self._freed.notify_all()

    def wait_for_more(self, seen: int) -> None:
        """Block until something was given back since ``times_freed`` was ``seen``. Call it with no lock but the
        fence.
        """
        with self._freed:
            self._freed.wait_for(lambda: self.times_freed != seen)


@dataclass(frozen=True, slots=True)
class SavedRows:
    """Rows one step was about to overwrite: grouped by table, distinct. Shapes [M]."""

    tables_m: Int32s
    ids_m: Int64s
    versions_m: Int64s
    rows_mb: RowBytes
    """[M, row_bytes of the pool]"""


class _TableIndex:
    """Where the saved rows of one table are: place >= 0 in a block of memory, else row ``-1 - place`` of the spill
    file.
    """

    def __init__(self) -> None:
        self.index = IdIndex()
        self.places = np.empty(64, dtype=np.int64)
        self.versions = np.empty(64, dtype=np.int64)

    def add(self, ids: Int64s, places: Int64s, versions: Int64s) -> None:
        positions = self.index.insert(ids)
        size = self.places.shape[0]
        if self.index.count > size:
            room = np.empty(max(self.index.count, 2 * size) - size, dtype=np.int64)
            self.places, self.versions = np.concatenate([self.places, room]), np.concatenate([self.versions, room])
        self.places[positions], self.versions[positions] = places, versions


class Shadow:
    """Saved rows by (table, id)."""

    def __init__(self, room: ShadowRoom, spill: SpillFile | None) -> None:
        self._room, self._spill = room, spill
        self._lock = threading.Lock()
        self._added: list[tuple[SavedRows, int]] = []
        """Each with the number of its first row in the spill file, or -1."""
        self._memory_bytes = self._spill_bytes = 0
        self._given_up: str | None = None
        self._index_lock = threading.Lock()
        self._indexed = 0
        self._tables: dict[int, _TableIndex] = {}
        """By table; made when the first of its rows is saved, for most snapshots are over before that."""
        self._bases_c = NO_BASES
        self.num_rows = self.spilled_rows = 0
        self.spill_error: OSError | None = None

    def add(self, saved: SavedRows) -> bool:
        """Keep rows; False when they fit nowhere. On the compute lane. Ignored when the shadow was given up or
        closed.
        """
        size = int(saved.rows_mb.nbytes) + saved.ids_m.shape[0] * ROW_OVERHEAD_BYTES
        with self._lock:
            if self._given_up is not None:
                return True
            if self._room.take(size, 0):
                self._memory_bytes += size
                self._added.append((saved, -1))
            else:
                first = self._append_to_spill(saved, size)
                if first is None:
                    return False
                self._spill_bytes += size
                self._added.append((replace(saved, rows_mb=saved.rows_mb[:0]), first))
            self.num_rows += saved.ids_m.shape[0]
            return True

    def _append_to_spill(self, saved: SavedRows, size: int) -> int | None:
        if self._spill is None or self.spill_error is not None or not self._room.take(0, size):
            return None
        try:
            first = self._spill.append(saved.rows_mb)
        except OSError as error:
            self.spill_error = error
            self._room.give_back(0, size)
            return None
        self.spilled_rows += saved.ids_m.shape[0]
        return first

    def give_up(self, why: str) -> None:
        """Drop everything and keep nothing more."""
        with self._lock:
            if self._given_up is not None:
                return
            self._given_up = why
            self._added = []
            self._room.give_back(self._memory_bytes, self._spill_bytes)

    @property
    def given_up(self) -> str | None:
        return self._given_up

    @property
    def untouched(self) -> bool:
        """Whether nothing was saved, and nothing given up: what the caller copied before it asked is what was frozen."""
        with self._lock:
            return not self._added and self._given_up is None

    def overlay(self, tables_n: Int32s, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s) -> str | None:
        """Replace the rows and versions of saved pairs. Returns why it cannot, if the shadow was given up."""
        with self._lock:  # also what orders the caller's copy behind whatever was saved before it
            if not self._added:
                return self._given_up
        with self._index_lock:
            why = self._catch_up()
            if why is not None:
                return why
            for table, held in self._tables.items():
                of_table = np.flatnonzero(tables_n == table)
                positions = held.index.find(ids_n[of_table])
                found = positions >= 0
                hits, positions = of_table[found], positions[found]
                if hits.shape[0]:
                    versions_n[hits] = held.versions[positions]
                    rows_nb[hits] = self._rows(held.places[positions], rows_nb.shape[1])
        return None

    def items(self, table: int) -> tuple[Int64s, Int64s, str | None]:
        """Saved ids and their versions; and why the answer is void, if it is."""
        with self._index_lock:
            why = self._catch_up()
            held = self._tables.get(table)
            if held is None:
                return NO_BASES, NO_BASES, why
            ids, positions = held.index.items()
            return ids, held.versions[positions], why

    def _rows(self, places: Int64s, row_bytes: int) -> RowBytes:
        rows_nb = np.empty((places.shape[0], row_bytes), dtype=np.uint8)
        fetch(places, self._bases_c, BLOCK_SHIFT, self._stride_bytes, rows_nb)
        spilled = np.flatnonzero(places < 0)
        if spilled.shape[0]:
            assert self._spill is not None
            found = np.empty((spilled.shape[0], row_bytes), dtype=np.uint8)
            self._spill.read(-1 - places[spilled], found)
            rows_nb[spilled] = found
        return rows_nb

    def _catch_up(self) -> str | None:
        """Index what was added. Whatever a reader copied before this call and was then overwritten is in what it
        sees.
        """
        with self._lock:
            why, added, count = self._given_up, self._added, len(self._added)
        if why is None:
            for number in range(self._indexed, count):
                self._index(number, *added[number])
            self._indexed = count
            self._keep = added
        return why

    def _index(self, block: int, saved: SavedRows, first: int) -> None:
        rows = np.arange(saved.ids_m.shape[0], dtype=np.int64)
        places = -1 - first - rows if first >= 0 else (block << BLOCK_SHIFT) + rows
        if block >= self._bases_c.shape[0]:
            self._bases_c = np.concatenate([self._bases_c, np.zeros(max(block, 16), dtype=np.int64)])
        self._bases_c[block] = saved.rows_mb.ctypes.data
        self._stride_bytes = int(saved.rows_mb.shape[1])
        bounds = np.flatnonzero(np.diff(saved.tables_m, prepend=-1, append=-1)).tolist()
        for start, stop in pairwise(bounds):
            number = int(saved.tables_m[start])
            if number not in self._tables:
                self._tables[number] = _TableIndex()
            self._tables[number].add(saved.ids_m[start:stop], places[start:stop], saved.versions_m[start:stop])

    def close(self) -> None:
        """Give everything back. May be called twice; ends a read in progress before it frees what that reads."""
        self.give_up("it was closed")
        with self._index_lock:
            self._keep = []
            self._tables = {}
            self._indexed = 0
            if self._spill is not None:
                self._spill.close()
