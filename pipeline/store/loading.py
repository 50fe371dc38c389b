"""Rows from outside: checked, packed, and written as a step of their own.

Rules.

1. What is given is checked before anything is done: a load that is refused has changed nothing.
2. All rows of a load are of one step, however many there are and however small L1 is: so what comes after it, and what it is called in
   checkpoints and streams, depends on neither.
3. They go the way of a batch: slots are reserved, the old rows are there when snapshots want to keep them, the new ones are written into
   L1, and leave it as any. In pieces: those that L1 has room for at once are reserved before the fence, so that most of what can fail
   does while the store is whole; what fails inside the fence breaks it.
4. No optimizer runs, so hooks of updates are not called; those of evictions are. Inside the fence, where a load is larger than L1, they
   cannot fetch rows.

Legend: n rows that are given; b bytes of a packed row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cuda.backend import forbid_event_loop
from cuda.plan import BatchIds, FeatureSet, Int64s, SlotPlan, UniqueIds
from pipeline.rows.arrays import read_only_ids
from pipeline.rows.layout import NARROW, Column, stored_dtype
from pipeline.rows.narrow import narrow, widen
from pipeline.rows.spec import TableSpec
from pipeline.rows.version import pack_version
from pipeline.store.errors import BadLoad, BatchesInFlight
from pipeline.store.fence import Fence
from pipeline.store.reservation import Reservation
from pipeline.store.residency import Residency
from pipeline.store.snapshots import Snapshots
from pipeline.store.tier import RowBytes

GivenRows = tuple[str, Int64s, RowBytes]
"""(table, ids [n], packed rows [n, b])"""
CHUNK_ROWS: Final = 32_768
"""Most rows reserved, saved for snapshots and written in one go."""
NO_NUMBERS: Final = np.empty(0, dtype=np.int32)


ByName = Mapping[str, Any]


def pack(
    spec: TableSpec, ids: Any, rows: Any, states: ByName | None, meta: ByName | None, most: int
) -> tuple[Int64s, RowBytes]:
    """(ids [n], packed rows [n, b]), copies, of what ``Store.load`` is given. Raises BadLoad."""
    try:
        ids_n = read_only_ids(ids).copy()
    except (TypeError, ValueError, OverflowError) as error:
        raise BadLoad(spec.name, f"ids are a one-dimensional sequence of 64-bit integers ({error})") from None
    count = ids_n.shape[0]
    if count > most:
        raise BadLoad(
            spec.name, f"{count} rows were given, and store.load_rows allows {most} at once: load in parts, or raise it"
        )
    sorted_n = np.sort(ids_n)
    again = sorted_n[1:][sorted_n[1:] == sorted_n[:-1]]
    if again.shape[0]:
        raise BadLoad(spec.name, f"id {int(again[0])} comes twice; each row is named once")
    given = [(spec.layout.columns[0], rows)]
    given += _named(spec, spec.layout.states, states, "state", "its optimizer's states are")
    given += _named(spec, spec.layout.meta, meta, "meta column", "its meta columns are")
    rows_nb = spec.layout.empty(count)
    for column, values in given:
        spec.layout.view(rows_nb, column.name)[:] = _stored(spec.name, column, values, ids_n)
    return ids_n, rows_nb


def _named(
    spec: TableSpec, columns: Sequence[Column], given: ByName | None, kind: str, known: str
) -> list[tuple[Column, Any]]:
    """Each of the columns with what was given for it; none where nothing was. Raises BadLoad."""
    if given is None:
        return []
    wanted = {column.name: column for column in columns}
    wrong = [f"has no {kind} {name!r}" for name in given if name not in wanted]
    wrong += [f"lacks {name!r}" for name in wanted if name not in given]
    if wrong:
        told = f"{known} {', '.join(wanted) or 'none'}. Without any, they begin at zero"
        raise BadLoad(spec.name, f"what was given {'; '.join(wrong)}: {told}")
    return [(wanted[name], values) for name, values in given.items()]


def _stored(table: str, column: Column, values: Any, ids_n: Int64s) -> npt.NDArray[Any]:
    """A column [n, width] as rows keep it; float32 is rounded to nearest where that is of 16 bits."""
    try:
        given = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadLoad(table, f"{column.name} is no array ({error})") from None
    wide = np.dtype(np.float32 if column.dtype in NARROW else column.dtype)
    wanted = f"{wide} of {(len(ids_n), column.width)}" + (" or float16" if column.dtype == "float16" else "")
    fits = given.shape == (len(ids_n), column.width) or (column.width == 1 and given.shape == ids_n.shape)
    same = given.dtype == wide or (column.dtype == "float16" and given.dtype == np.float16)
    if not fits or not same:
        raise BadLoad(table, f"{column.name} is {given.dtype} of {given.shape}; {wanted} is needed")
    given = given.reshape(len(ids_n), column.width)
    if column.dtype in NARROW and given.dtype == np.float32:
        given = narrow(np.ascontiguousarray(given), column.dtype).view(stored_dtype(column.dtype))
    seen = widen(given, column.dtype) if column.dtype in NARROW else given
    bad_n = ~np.isfinite(seen).all(axis=1)
    if bad_n.any():
        row = int(ids_n[bad_n][0])
        raise BadLoad(
            table,
            f"{column.name} of row {row} holds NaN or infinity, or what {column.dtype} cannot hold; rows are finite",
        )
    return given


class Loading:
    """One load, from its first reservation to its last release. A context manager; ``write`` while the fence is held.

    ``plan`` then names all rows, for who listens to steps; its slots mean nothing, for rows may have left them.
    """

    def __init__(
        self,
        residency: Residency,
        snapshots: Snapshots,
        features: FeatureSet,
        release: Callable[[Reservation], None],
        fence: Fence,
        parts: Iterable[GivenRows],
    ) -> None:
        """Raises BatchesInFlight."""
        forbid_event_loop("Store.load_packed")
        self._residency, self._snapshots, self._release, self._fence = residency, snapshots, release, fence
        if residency.in_flight:
            raise BatchesInFlight(residency.in_flight, fence.step)
        self._most = min(CHUNK_ROWS, residency.l1_rows)
        self._chunks = self._chunked(parts)
        self._ahead: deque[tuple[Reservation, RowBytes]] = deque()
        self._ids_t: list[list[Int64s]] = [[] for _ in residency.specs]
        num_features = len(features.names)
        starts_f, offsets_fb = np.zeros(num_features + 1, np.int64), np.zeros((num_features, 1), np.int64)
        self._batch = BatchIds(features, 0, np.empty(0, np.int64), starts_f, offsets_fb, None)

    def __enter__(self) -> Loading:
        """Reserve what L1 has room for. Raises what a tier raises; rows that could not be read stay pinned, as those of a batch."""
        room = self._residency.l1_rows
        try:
            while room >= self._most and self._claim_next():
                room -= self._ahead[-1][0].plan.unique.count
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        while self._ahead:
            self._release(self._ahead.popleft()[0])

    def write(self, generation: int) -> int:
        """Write all rows as the next step, piece by piece; those that snapshots want to keep are saved first. Returns its number."""
        step = self._fence.step + 1
        with self._fence.write(step):
            while self._ahead or self._claim_next():
                self._write_next(pack_version(generation, step))
        return step

    def _write_next(self, version: int) -> None:
        residency, (reservation, rows_nb) = self._residency, self._ahead[0]
        residency.mark_written(reservation)
        self._snapshots.before_write(reservation.plan)
        versions_n = np.full(rows_nb.shape[0], version, dtype=np.int64)
        residency.backend.write_rows(reservation.plan.slots_u, rows_nb, versions_n)
        residency.counters.loaded_rows += rows_nb.shape[0]
        self._release(self._ahead.popleft()[0])

    @property
    def plan(self) -> SlotPlan:
        unique = self._unique([np.concatenate([np.empty(0, np.int64), *ids]) for ids in self._ids_t])
        return SlotPlan(self._batch, unique, np.full(unique.count, -1, dtype=np.int32))

    def _chunked(self, parts: Iterable[GivenRows]) -> Iterator[tuple[int, Int64s, RowBytes]]:
        for table, ids_n, rows_nb in parts:
            for start in range(0, ids_n.shape[0], self._most):
                part = slice(start, start + self._most)
                yield self._residency.tables[table], ids_n[part], rows_nb[part]

    def _claim_next(self) -> bool:
        """Get slots for the next chunk, with the rows of now in them. False behind the last one."""
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        table, ids_n, rows_nb = chunk
        unique = self._unique([ids_n if t == table else ids_n[:0] for t in range(len(self._ids_t))])
        reservation = self._residency.try_reserve(None, self._batch, unique)
        if reservation is None:  # somebody has reserved since
            raise BatchesInFlight(self._residency.in_flight - len(self._ahead), self._fence.step)
        self._residency.read_misses(reservation)
        self._ids_t[table].append(ids_n)
        self._ahead.append((reservation, rows_nb))
        return True

    def _unique(self, ids_t: list[Int64s]) -> UniqueIds:
        counts_t = np.array([ids.shape[0] for ids in ids_t], dtype=np.int64)
        tables_u = np.repeat(np.arange(len(ids_t), dtype=np.int32), counts_t)
        starts_t = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts_t)])
        none_u = np.zeros(tables_u.shape[0] + 1, dtype=np.int64)
        return UniqueIds(np.concatenate(ids_t), tables_u, starts_t, NO_NUMBERS, none_u, NO_NUMBERS)
