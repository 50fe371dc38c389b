"""A RowSource of what a user's own loop told: rows it pushed, and rows that it is asked for when a cut carries them.

Rules.

1. What the steps told is kept until a cut that carries it is committed (``release``), whatever fails before.
2. Where rows are asked for (``RowReader``), the fence is held from the moment a cut is taken until its last row was read: nobody may
   change rows meanwhile. Rows that were pushed are this object's own, and nobody waits.
3. The version of a row is the step that told of it last. One that no step of this life told of (a snapshot cut names them all) has the
   cut's.

Legend: n rows; d weights of a row; b bytes of a packed row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import is_
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.rows.room import MakeRoom
from pipeline.rows.version import pack_version
from pipeline.stream.errors import BadRows, CannotList, StreamError
from pipeline.stream.own.fence import Fence
from pipeline.stream.own.tables import as_ids, pack_rows
from pipeline.stream.own.told import READ, Told, newest
from pipeline.stream.source import AllRows, ChangedIds, ChangedRows, Int64s, RowBytes
from pipeline.wire.frames import StreamedTable

Result = TypeVar("Result")
MOST_PIECES = 64
"""Steps that wait are merged when they are so many."""


@dataclass(frozen=True, slots=True, eq=False)
class OwnRows:
    """Rows as their owner gives them, in the order asked."""

    weights: Any
    """float32 [n, d]"""
    states: Mapping[str, Any] = field(default_factory=dict)
    """float32 [n, width], of the table's ``states``."""
    identities: Any = None
    """int64 [n, k], where the table has some."""
    held: Any = None
    """bool [n]: where it is False there is no such row any more. Not given: all are there."""


class RowReader:
    """Base class for who has rows elsewhere and shows them to a stream. A plain function ``read(table, ids)`` does as well."""

    def read(self, table: str, ids: Int64s) -> OwnRows | Any:
        """The rows of distinct ids as they stand now: weights float32 [n, d], or OwnRows. Called while no step can end (rule 2)."""
        raise NotImplementedError

    def ids(self, table: str) -> Any:
        """Every id that has a row, for snapshot cuts. May be left out."""
        raise CannotList(table)


class _Function(RowReader):
    def __init__(self, read: Callable[[str, Int64s], Any]) -> None:
        self.read = read  # type: ignore[assignment]


def as_reader(rows: RowReader | Callable[[str, Int64s], Any] | None) -> RowReader | None:
    return rows if rows is None or isinstance(rows, RowReader) else _Function(rows)


@dataclass(frozen=True, slots=True, eq=False)
class OwnRead:
    rows_nb: RowBytes
    versions_n: Int64s
    held_n: npt.NDArray[np.bool_]


class OwnSource:
    """See the module docstring. Safe to use from several threads."""

    lists_changes = True

    def __init__(
        self,
        tables: Sequence[StreamedTable],
        reader: RowReader | None,
        dense: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.tables = tuple(tables)
        self.reader = reader
        self.fence = Fence()
        self.generation = self.step = 0
        self.told_alone = False
        """While it restarts: there are the rows that were told of, and no others."""
        self._dense = dense
        self._by_name = {table.spec.name: table for table in self.tables}
        self._lock = threading.Lock()
        self._told: dict[str, list[Told]] = {}

    def at_fence(self, call: Callable[[int], Result]) -> Result:
        with self.fence:
            return call(self.step)

    def end_step(self, step: int, told: Mapping[str, Told]) -> None:
        """Inside the fence: what step ``step`` told."""
        self.step = step
        with self._lock:
            for table, piece in told.items():
                self._told.setdefault(table, []).append(piece.at(step))
        if any(len(pieces) > MOST_PIECES for pieces in self._told.values()):
            self.merge()

    def begin_with(self, step: int, told: Mapping[str, Told]) -> None:
        """All that waits, and ``told``, is of ``step``."""
        with self.fence:
            self.end_step(step, told)
            with self._lock:
                self._told = {table: [piece.at(step) for piece in pieces] for table, pieces in self._told.items()}

    def merge(self) -> None:
        """Keep the last word of each id alone."""
        for table in self._by_name:
            self.newest(table, self.pieces(table))

    def pieces(self, table: str) -> list[Told]:
        with self._lock:
            return list(self._told.get(table, ()))

    def newest(self, table: str, pieces: list[Told]) -> Told:
        """``pieces``, the oldest of the table, merged; they are kept so, unless they were let go meanwhile."""
        merged = newest(pieces)
        with self._lock:
            now = self._told.get(table, [])
            if len(pieces) > 1 and len(now) >= len(pieces) and all(map(is_, now, pieces)):
                now[: len(pieces)] = [merged]
        return merged

    def release(self, step: int) -> None:
        """All that was told up to ``step`` is published."""
        with self._lock:
            left = {table: [piece.behind(step) for piece in pieces] for table, pieces in self._told.items()}
            self._told = {table: [one for one in pieces if len(one.ids_n)] for table, pieces in left.items()}

    def check_lists(self) -> None:
        """Raises CannotList unless somebody can say which rows there are."""
        if self.reader is None or type(self.reader).ids is RowReader.ids:
            raise CannotList(self.tables[0].spec.name)

    @property
    def nbytes(self) -> int:
        """Memory held for rows and ids that wait."""
        with self._lock:
            return sum(piece.nbytes for pieces in self._told.values() for piece in pieces)

    def freeze(self, changed: ChangedIds | AllRows | ChangedRows, *, changed_since: int) -> OwnSnapshot:  # noqa: ARG002
        """See ``RowSource``. What the steps told says by itself what changed, and what has ended."""
        if self.reader is not None:
            self.fence.acquire()  # rule 2; close() gives it back
        return OwnSnapshot(self, self.step, {table: self.pieces(table) for table in self._by_name}, changed == "all")

    def dense(self) -> Mapping[str, npt.NDArray[Any]]:
        given = {} if self._dense is None else self._dense()
        arrays = ((name, one.detach() if hasattr(one, "detach") else one) for name, one in given.items())
        return {name: np.asarray(array).copy() for name, array in arrays}

    def read(self, table: str, ids_n: Int64s) -> tuple[RowBytes, npt.NDArray[np.bool_]]:
        """Packed rows [n, b] as their owner has them, and which there are. Raises BadRows."""
        assert self.reader is not None
        given = self.reader.read(table, ids_n)
        if not isinstance(given, OwnRows):
            given = OwnRows(given)
        rows_nb = pack_rows(self._by_name[table], len(ids_n), given.weights, given.states, given.identities)
        held_n = np.ones(len(ids_n), dtype=np.bool_) if given.held is None else np.asarray(given.held)
        if held_n.dtype != np.bool_ or held_n.shape != (len(ids_n),):
            raise BadRows(
                table, f"`held` of {len(ids_n)} ids is bool [{len(ids_n)}]; got {held_n.dtype} {list(held_n.shape)}"
            )
        return rows_nb, held_n

    def longest(self, tables: Mapping[str, Any]) -> int:
        return max(self._by_name[table].spec.layout.row_bytes for table in tables)


@contextmanager
def only_told(source: OwnSource | None) -> Iterator[None]:
    """Snapshots that are frozen meanwhile have the rows that were told of, and no others."""
    if source is not None:
        source.told_alone = True
    try:
        yield
    finally:
        if source is not None:
            source.told_alone = False


class OwnSnapshot:
    """See ``RowSnapshot``. Read by one thread at a time."""

    def __init__(self, source: OwnSource, step: int, pieces: Mapping[str, list[Told]], everything: bool) -> None:
        self.step, self._everything = step, everything
        self._source, self._pieces = source, pieces
        self._merged: dict[str, Told] = {}
        self._holds_fence = source.reader is not None
        self._told_alone = source.told_alone

    def ids(self, table: str) -> Int64s:
        """Of rows that changed: also those that ended. Raises CannotList."""
        if self._told_alone:
            return self._newest(table).held_ids
        if not self._everything:
            return self._newest(table).ids_n
        if self._source.reader is None:
            raise CannotList(table)
        return np.unique(as_ids(table, self._source.reader.ids(table)))

    def read(self, ids: Mapping[str, Int64s]) -> OwnRead:
        count, longest = sum(map(len, ids.values())), self._source.longest(ids)
        rows_nb, held_n = np.zeros((count, longest), dtype=np.uint8), np.zeros(count, dtype=np.bool_)
        versions_n = np.full(count, pack_version(self._source.generation, self.step))
        start = 0
        for table, ids_n in ids.items():
            here = slice(start, start + len(ids_n))
            self._read(table, ids_n, rows_nb[here], versions_n[here], held_n[here])
            start += len(ids_n)
        return OwnRead(rows_nb, versions_n, held_n)

    def _newest(self, table: str) -> Told:
        if table not in self._merged:
            self._merged[table] = self._source.newest(table, list(self._pieces[table]))
        return self._merged[table]

    def _read(
        self, table: str, ids_n: Int64s, rows_nb: RowBytes, versions_n: Int64s, held_n: npt.NDArray[np.bool_]
    ) -> None:
        told = self._newest(table)
        at_n, found_n = told.find(ids_n)
        where_n = np.full(len(ids_n), READ)
        where_n[found_n] = told.where_n[at_n[found_n]]
        versions_n[found_n] += told.steps_n[at_n[found_n]] - self.step
        pushed, asked = np.flatnonzero(where_n >= 0), np.flatnonzero(where_n == READ)
        if len(pushed):
            rows_nb[pushed, : told.rows_xb.shape[1]] = told.rows_xb[where_n[pushed]]
            held_n[pushed] = True
        if len(asked):
            if self._source.reader is None:
                raise StreamError(f"row {int(ids_n[asked[0]])} of table {table!r} changed and was not pushed")
            rows, held_n[asked] = self._source.read(table, ids_n[asked])
            rows_nb[asked, : rows.shape[1]] = rows

    def encode(self, tables: Sequence[str], groups: tuple[Int64s, Int64s], make_room: MakeRoom) -> int | None:  # noqa: ARG002
        return None

    def close(self) -> None:
        if self._holds_fence:
            self._holds_fence = False
            self._source.fence.release()
