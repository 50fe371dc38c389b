"""A checkpoint of the log: which segments hold the rows of one moment. See ``table_mark`` for how, and why it is whole.

The walk: ``RowLog.mark`` between two steps; ``save`` what the tiers above hold and the log does not; ``seal``, after which all of it
is durable; then whoever writes the manifest names the segments in it. They are held until ``Held.release``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.files import Files
from pipeline.rowlog.log.bound import Bound
from pipeline.rowlog.log.log_table import LogTable
from pipeline.rowlog.log.segment import Segment
from pipeline.rowlog.log.segment_format import SealedSegment, read_footer
from pipeline.rowlog.log.table_mark import TableMark
from pipeline.rowlog.log.write_behind import WriteBehind

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SavedTable:
    """The segments that hold one table's rows, about how many rows that are, and the number that no segment had then."""

    segments: tuple[SealedSegment, ...]
    num_rows: int
    next_number: int


@dataclass(frozen=True, slots=True)
class SavedRows:
    """The rows of a checkpoint, by table."""

    tables: Mapping[str, SavedTable]

    def all_segments(self) -> Iterator[SealedSegment]:
        return (segment for table in self.tables.values() for segment in table.segments)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a log finds when it is opened. Segments in its directories that nothing of this names are removed."""

    newest: SavedRows | None = None
    """The rows it begins with; None: none."""
    held: Sequence[SavedRows] = ()
    """Checkpoints whose segments it keeps until they are released, ``newest`` among them; all lie in its directories."""
    spared: Sequence[SavedRows] = ()
    """Others, some of whose segments may lie there: it leaves them alone."""

    def paths(self) -> set[str]:
        return {one.path for saved in (*self.held, *self.spared) for one in saved.all_segments()}

    def next_number(self, table: str) -> int:
        """Above the numbers of all segments of a table that these checkpoints had seen."""
        return max((saved.tables[table].next_number for saved in (*self.held, *self.spared)), default=1)


class Held:
    """Segments that stay, though the log may need them no more, until they are released."""

    def __init__(self, segments: Mapping[LogTable, list[Segment]]) -> None:
        self._segments = dict(segments)

    def release(self) -> None:
        """Let go of them. May be called twice."""
        segments, self._segments = self._segments, {}
        for table, named in segments.items():
            table.release(named)


class Mark:
    """A checkpoint that is being written. One thread."""

    def __init__(self, tables: Mapping[str, LogTable], files: Files, writer: WriteBehind, bound: Bound) -> None:
        self._files, self._writer, self._tables, self._bound = files, writer, tables, bound
        self._marks = {name: TableMark(table) for name, table in tables.items()}

    def put_since(self, table: str) -> Iterator[Int64s]:
        """Ids put since the mark, piece by piece; other ones may be among them. To be listed last (``table_mark``, rule 3)."""
        self._writer.check()
        return self._marks[table].put_since(lambda segment: read_footer(self._files, segment.as_sealed()).ids_n)

    def save(self, table: str, ids_n: Int64s, rows_nb: npt.NDArray[np.uint8], versions_n: Int64s) -> None:
        """Append rows as they stood at the mark, ids distinct; each once. Waits while the disk is behind. Raises LogFailed, LogFull."""
        self._writer.wait_for_room()
        if len(ids_n):
            self._bound.check(self._tables[table], len(ids_n))
            self._marks[table].save(ids_n, rows_nb, versions_n)

    def seal(self) -> tuple[SavedRows, Held]:
        """End the checkpoint: all it names is durable when this returns. Raises LogFailed."""
        named = {name: mark.end() for name, mark in self._marks.items()}
        self._marks = {}
        self._writer.drain()
        saved = {
            name: SavedTable(
                tuple(segment.as_sealed() for segment in segments),
                self._tables[name].index.count,
                self._tables[name].next_number,
            )
            for name, segments in named.items()
        }
        return SavedRows(saved), Held({self._tables[name]: segments for name, segments in named.items()})

    def abandon(self) -> None:
        """There will be no checkpoint. What was saved stays in the log. No effect after ``seal``."""
        for name, mark in self._marks.items():
            self._tables[name].release(mark.end())
        self._marks = {}
