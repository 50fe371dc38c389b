"""Where a streamer's rows come from: a store, seen through the few things that a cut needs.

Legend: n ids asked for; b bytes of one packed row (``rows.layout``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.rows.room import MakeRoom
from pipeline.wire.frames import StreamedTable

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]
Result = TypeVar("Result")
AllRows = Literal["all"]
ChangedRows = Literal["changed"]
ChangedIds = Callable[[], Mapping[str, Sequence[Int64s]]]


class RowsRead(Protocol):
    """Rows in the order asked, the caller's own. Where ``held_n`` is False the source has no row, and the other two mean nothing."""

    @property
    def rows_nb(self) -> RowBytes: ...

    @property
    def versions_n(self) -> Int64s: ...

    @property
    def held_n(self) -> npt.NDArray[np.bool_]: ...


class RowSnapshot(Protocol):
    """Rows as they stood at the end of ``step``, readable from any lane while training goes on."""

    @property
    def step(self) -> int: ...

    def ids(self, table: str) -> Int64s:
        """Every id whose row was ever updated, or, of a snapshot of ``"changed"`` rows, was updated behind its step. Distinct, rising. Only
        asked of these two. Raises SnapshotLost.
        """

    def read(self, ids: Mapping[str, Int64s]) -> RowsRead:
        """The rows of some ids of some tables, n in all: those of the first table, then those of the second, and so on.

        Rows uint8 [n, at least the longest row_bytes of these tables], packed versions [n], held [n]. Raises SnapshotLost.
        """

    def encode(self, tables: Sequence[str], groups: tuple[Int64s, Int64s], make_room: MakeRoom) -> int | None:
        """The rows of some groups of ids, each once, encoded by their tables' codecs straight into a frame's content.

        ``groups`` are ids [M] and starts [G, T + 1]: group g names the ids from ``starts[g, t]`` to ``starts[g, t + 1]`` of table t
        of ``tables``. ``make_room`` is called once, with how many distinct rows each table has. Returns the rows' share of the
        cut's digest. None: the source could not do it so, what stands in the room means nothing, and the rows are to be ``read``.
        """

    def close(self) -> None:
        """Let the rows go. May be called twice."""


class RowSource(Protocol):
    """One that can say itself which rows changed has ``lists_changes = True``. It can no more where rows may end."""

    @property
    def tables(self) -> Sequence[StreamedTable]:
        """The tables that are streamed, each with its codec. Fixed."""

    def at_fence(self, call: Callable[[int], Result]) -> Result:
        """Run ``call(step)`` between two steps' writes, ``step`` being the last that ended, and return its result.

        Training stands still meanwhile, so ``call`` only swaps references. Served also while no step is coming.
        """

    def freeze(self, changed: ChangedIds | AllRows | ChangedRows, *, changed_since: int) -> RowSnapshot:
        """Inside ``at_fence``: mark rows, copy nothing, wait for nothing.

        ``changed()`` gives the ids that will be read: per table any number of arrays, which may repeat ids. All of them
        were last updated after step ``changed_since``, so a source may go by that alone. ``"all"``: every row held. ``"changed"``: the
        rows that were last updated after that step, and perhaps others; only where ``lists_changes`` is true.
        """

    def dense(self) -> Mapping[str, npt.NDArray[Any]]:
        """Inside ``at_fence``: a copy of the dense weights by name, the caller's own. Empty where there are none."""
