"""The rows of one table of a checkpoint: an index from the footers of its segments, and records read by it.

Memory: about 22 bytes a row for the index and 8 for the order of ids, beside one chunk of rows.

Legend: n rows of one chunk or call; b bytes of a packed row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.files import Files
from pipeline.rowlog.log.mark import SavedTable
from pipeline.rowlog.log.records import ROW_BITS, Records, Rows
from pipeline.rowlog.log.recovery import recover
from pipeline.rowlog.log.row_reads import RowReads
from pipeline.rowlog.log.segment import Kind, Segment
from pipeline.rowlog.log.segment_format import check_is_of, check_unpacked, number_of, read_footer
from pipeline.rowlog.places import PlaceIndex
from pipeline.rows.spec import TableSpec

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]
ROW_MASK: Final = (1 << ROW_BITS) - 1
CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Rows of one table: ids ascending, distinct. Owns its arrays."""

    ids_n: Int64s
    rows_nb: RowBytes
    versions_n: Int64s

    def __iter__(self) -> Any:
        """Unpacks as ``ids_n, rows_nb, versions_n``."""
        return iter((self.ids_n, self.rows_nb, self.versions_n))


@dataclass(slots=True)
class OpenFiles:
    """Segments that are open for reading, by number; each is opened when it is first needed."""

    reads: RowReads
    opened: dict[int, int] = field(default_factory=dict)

    def numbers(self, segments_n: Int64s, path: Callable[[int], str]) -> npt.NDArray[np.int32]:
        """The number at ``reads`` of each segment."""
        known_n, at_n = np.unique(segments_n, return_inverse=True)
        for number in known_n.tolist():
            if number not in self.opened:
                self.opened[number] = self.reads.open(path(number))
        return np.array([self.opened[number] for number in known_n.tolist()], dtype=np.int32)[at_n]


class TableReader:
    """See the module docstring. Nothing stays open between two calls. Raises LogCorrupt, OtherFormat."""

    def __init__(self, spec: TableSpec, saved: SavedTable, files: Files, reads: Callable[[], RowReads]) -> None:
        """``saved``: with the paths to read from. Reads headers and footers."""
        self._spec, self._files, self._reads = spec, files, reads
        self._records, self.index = Records.of(spec), PlaceIndex()
        self._sealed = {number_of(one.path): one for one in saved.segments}
        segments = [Segment(number, one.path, Kind.PUT, one.num_rows) for number, one in self._sealed.items()]
        for segment in segments:
            check_is_of(files, spec, self._records, segment.path)
        recover(self.index, segments, lambda one: read_footer(files, self._sealed[one.number]), saved.num_rows)

    @property
    def num_rows(self) -> int:
        return self.index.count

    def rows(self) -> Iterator[RowChunk]:
        """All rows, ids ascending, a few MiB at a time."""
        ids = np.sort(self.index.ids())
        step = max(1, CHUNK_BYTES // self._records.stride)
        with self._opened() as files:
            for start in range(0, ids.shape[0], step):
                ids_n = ids[start : start + step]
                rows = self._read(files, ids_n, self.index.find(ids_n))
                yield RowChunk(ids_n.copy(), rows.rows_nb, rows.versions_n)

    def versions(self) -> Iterator[tuple[Int64s, Int64s]]:
        """Ids and versions of all rows, in no order, a segment at a time. Reads no rows."""
        for number, sealed in self._sealed.items():
            ids_n, versions_n = read_footer(self._files, sealed)
            newest_n = self.index.find(ids_n) == (np.arange(len(ids_n), dtype=np.int64) | number << ROW_BITS)
            yield ids_n[newest_n], versions_n[newest_n]

    def read(self, ids_n: Int64s, places_n: Int64s) -> Rows:
        """The rows of ids at their places, all of them held; each checked."""
        with self._opened() as files:
            return self._read(files, ids_n, places_n)

    @contextmanager
    def _opened(self) -> Iterator[OpenFiles]:
        files = OpenFiles(self._reads())
        try:
            yield files
        finally:
            files.reads.close()

    def _read(self, files: OpenFiles, ids_n: Int64s, places_n: Int64s) -> Rows:
        records = self._records
        rows = Rows(np.empty((len(ids_n), records.row_bytes), dtype=np.uint8), np.empty(len(ids_n), dtype=np.int64))
        found_nb = np.empty((len(ids_n), records.stride), dtype=np.uint8)
        files_n = files.numbers(places_n >> ROW_BITS, lambda number: self._sealed[number].path)
        files.reads.read(files_n, records.offsets(places_n & ROW_MASK), found_nb)
        into_n = np.arange(len(ids_n), dtype=np.int64)
        wrong = records.unpack(found_nb.reshape(-1), into_n * records.stride, places_n, ids_n, into_n, rows)
        check_unpacked(wrong, ids_n, places_n, records, self._spec.name, lambda number: self._sealed[number].path)
        return rows
