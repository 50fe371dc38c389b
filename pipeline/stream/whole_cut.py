"""A cut whose rows fit one frame and can be encoded where they lie: no arrays of ids by table, no copy of the rows.

Most cuts are such: they follow each other so closely that the rows of the last steps are still all in L1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.rows.codec import find_codec
from pipeline.rows.room import RowRoom
from pipeline.stream.grouped import GroupedIds, join
from pipeline.stream.source import Int64s, RowSnapshot
from pipeline.stream.taken import Changed
from pipeline.wire.frames import RowsFrame, StreamedTable
from pipeline.wire.row_runs import NO_BYTES, RunHead
from pipeline.wire.rows_content import arrange_content, lay_out, sort_content

MOST_REPEATS = 4
"""Ids that name each row so often on average are merged first."""

RowsOfFrame = Callable[[int], int]
"""How many rows of so many encoded bytes go into one frame."""
Arranged = Callable[[RowsFrame], RowsFrame]
"""The same frame with what is to be said of how it travels."""
MakeFrame = Callable[[tuple[RunHead, ...]], RowsFrame]
"""The frame of these runs, its arrays still missing."""


@dataclass(slots=True)
class WholeFrame:
    """The content of the frame, how many rows it has and their share of the cut's digest."""

    content_b: npt.NDArray[np.uint8] = field(default_factory=lambda: NO_BYTES)
    num_rows: int = 0
    digest: int = 0
    frame: RowsFrame | None = None
    """The frame with its heads, its arrays missing."""


class WholeCut:
    """Makes the one frame of such a cut. ``tables`` are those that the stream carries, and ``rows`` as ``FrameSizes.rows``, ``arranged`` as
    ``Packer.arranged_in_order``.
    """

    def __init__(self, tables: Mapping[str, StreamedTable], rows: RowsOfFrame, arranged: Arranged) -> None:
        self._arranged = arranged
        self._row_bytes = {name: find_codec(table.codec).row_bytes(table.spec.dim) for name, table in tables.items()}
        self._most = {name: rows(nbytes) for name, nbytes in self._row_bytes.items()}
        self._carrying = [name for name, table in tables.items() if table.carries]

    def encode(self, rows: RowSnapshot, changed: Changed, make_frame: MakeFrame) -> WholeFrame | None:
        """None where the cut has to be made in the general way."""
        steps = self._steps(changed)
        if not steps:
            return None
        tables, made, laid_out = steps[0].tables, WholeFrame(), list[tuple[RowRoom, RowsFrame]]()

        def make_room(counts_t: Int64s) -> RowRoom | None:
            counts = [(name, count) for name, count in zip(tables, counts_t.tolist(), strict=True) if count]
            if sum(count / self._most[name] for name, count in counts) > 1:
                return None
            heads = tuple(RunHead(name, count, self._row_bytes[name]) for name, count in counts)
            frame = self._arranged(make_frame(heads))
            made.num_rows = sum(count for _, count in counts)
            room = lay_out(frame)
            laid_out.append((room, frame))
            made.content_b = room.content_b
            return room

        digest = rows.encode(tables, join(steps), make_room)
        if digest is None:
            return None
        room, frame = laid_out[0]
        if frame.delta:
            sort_content(room, frame)
        arrange_content(room, frame)
        made.digest, made.frame = digest, frame
        return made

    def _steps(self, changed: Changed) -> list[GroupedIds]:
        """What changed, if it is still as the steps told it, of streamed tables, and not too much; else nothing."""
        told = changed.told
        if changed.pieces or not told or not isinstance(told[0], GroupedIds):
            return []
        tables = told[0].tables
        steps = [step for step in told if isinstance(step, GroupedIds) and step.tables == tables]
        known = len(steps) == len(told) and all(self._row_bytes.keys() >= set(step) for step in steps)
        if self._carrying and any(step.counts[name] for step in steps for name in self._carrying):
            return []  # what rides along is read with the rows
        few = sum(len(step.ids_u) for step in steps) <= MOST_REPEATS * max(self._most.values())
        return steps if known and few else []
