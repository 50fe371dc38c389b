"""The tier below L1, as L1 uses it: rows brought into slots and put back, in whichever way tier and backend can.

Where the tier lies in the host's memory and the backend says where its rows are, they move in one call for all tables, without a copy
between; else table by table, through packed rows, several tables at once where the tier gains by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from cuda.backend import Backend
from cuda.plan import Int32s, Int64s, RowPlaces
from pipeline.rows.initial import initial_rows
from pipeline.rows.spec import TableSpec
from pipeline.store.readers import Readers
from pipeline.store.reservation import Reservation
from pipeline.store.tier import MovesRows, RowBytes, Tier


class Below:
    """``specs`` name the tables in the backend's order. It counts nothing and holds no lock: the rules are those of ``Residency``."""

    def __init__(self, specs: Sequence[TableSpec], backend: Backend, tier: Tier, forgets: bool = False) -> None:
        """``forgets``: rows may end while they are dirty. They have version 0 then, and belong into no tier."""
        self._forgets = forgets
        self._specs, self._backend, self._tier = specs, backend, tier
        self._mover: MovesRows | None = tier if isinstance(tier, MovesRows) else None
        self._readers = Readers(getattr(tier, "gets_at_once", 1))

    @property
    def moves(self) -> bool:
        """Whether a miss is no more than a copy in memory."""
        return self._mover is not None

    def bring_in(self, reservation: Reservation) -> int:
        """Fill the slots of the misses; returns how many of the rows were nowhere, and begin with their initial weights."""
        unique, misses_m = reservation.plan.unique, reservation.misses_m
        if (way := self._way(reservation.slots_m)) is not None:
            return self._move_in(way, reservation.slots_m, unique.tables_u[misses_m], unique.ids_u[misses_m])
        bounds = np.searchsorted(misses_m, unique.table_start_t).tolist()
        parts = [
            (spec, slice(start, stop))
            for spec, start, stop in zip(self._specs, bounds[:-1], bounds[1:], strict=True)
            if start < stop
        ]
        reads = self._readers.map(lambda part: self.read(part[0], unique.ids_u[misses_m[part[1]]]), parts)
        initial = 0
        for (_, part), (rows_mb, versions_m, absent) in zip(parts, reads, strict=True):
            self._backend.write_rows(reservation.slots_m[part], rows_mb, versions_m)
            initial += absent
        return initial

    def _way(self, slots_m: Int32s) -> tuple[MovesRows, RowPlaces] | None:
        """Who moves rows, and where these slots lie; None where they cannot be moved."""
        places = None if self._mover is None else self._backend.row_places(slots_m)
        return None if self._mover is None or places is None else (self._mover, places)

    def _move_in(self, way: tuple[MovesRows, RowPlaces], slots_m: Int32s, tables_m: Int32s, ids_m: Int64s) -> int:
        mover, places = way
        absent = np.flatnonzero(~mover.get_rows(tables_m, ids_m, places))
        for number in np.unique(tables_m[absent]).tolist():
            some = absent[tables_m[absent] == number]
            rows_mb = initial_rows(self._specs[number], ids_m[some])
            self._backend.write_rows(slots_m[some], rows_mb, np.zeros(some.shape[0], dtype=np.int64))
        return int(absent.shape[0])

    def read(self, spec: TableSpec, ids_m: Int64s) -> tuple[RowBytes, Int64s, int]:
        """Rows as the tier holds them, or initial ones of version 0: packed rows [M, row_bytes], versions, how many are initial."""
        got = self._tier.get(spec.name, ids_m)
        absent = np.flatnonzero(~got.found_n)
        rows_mb = got.rows_nb
        if absent.shape[0] == ids_m.shape[0]:
            rows_mb = initial_rows(spec, ids_m)
        elif absent.shape[0]:
            rows_mb[absent] = initial_rows(spec, ids_m[absent])
        return rows_mb, got.versions_n, int(absent.shape[0])

    def get_few(self, table: int, ids_n: Int64s) -> tuple[RowBytes, Int64s] | None:
        """Rows of one table as the tier holds them, and their versions, 0 where there is no row. None where this may take longer than a
        copy in memory.
        """
        if self._mover is None:
            return None
        got = self._tier.get(self._specs[table].name, ids_n)
        return got.rows_nb, got.versions_n

    def put_back(self, slots_m: Int32s) -> None:
        """Put the rows of slots into the tier. Nobody writes them meanwhile."""
        if self._forgets:
            slots_m = slots_m[self._backend.read_versions(slots_m) > 0]
            if not slots_m.shape[0]:
                return
        tables_m, ids_m = self._backend.pairs(slots_m)
        if (way := self._way(slots_m)) is not None:
            way[0].put_rows(tables_m, ids_m, way[1])
            return
        order = np.argsort(tables_m, kind="stable")
        slots_m, tables_m, ids_m = slots_m[order], tables_m[order], ids_m[order]
        rows_mb, versions_m = self._backend.read_rows(slots_m)
        bounds = np.flatnonzero(np.diff(tables_m, prepend=-1, append=-1)).tolist()
        for start, stop in pairwise(bounds):
            part, name = slice(start, stop), self._specs[int(tables_m[start])].name
            self._tier.put(name, ids_m[part], rows_mb[part], versions_m[part])

    def close(self) -> None:
        """End the threads that read. May be called twice."""
        self._readers.close()
