"""Sends one cut: its frames as they are made, the last one together with the commit frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.stream.counters import StreamCounters
from pipeline.stream.cut import CutBuilder, FrameSizes
from pipeline.stream.options import StreamerOptions
from pipeline.stream.outlet import Outlet
from pipeline.stream.source import Int64s, RowSnapshot
from pipeline.stream.taken import Changed
from pipeline.stream.whole_cut import WholeCut
from pipeline.wire.dense import DenseArrays
from pipeline.wire.frames import CommitFrame, Frame, StreamedTable


class CutWriter:
    """Closes the snapshots it reads. Raises SnapshotLost, and what the transport raises; then no commit frame was acknowledged."""

    def __init__(
        self, outlet: Outlet, tables: Sequence[StreamedTable], options: StreamerOptions, counters: StreamCounters
    ) -> None:
        self.tables = {table.spec.name: table for table in tables}
        self._outlet, self._counters = outlet, counters
        self._sizes = FrameSizes(options.chunk_rows, options.dense_frame_bytes)
        self._whole = WholeCut(self.tables, self._sizes.rows, outlet.packer.arranged_in_order)

    def write_whole(self, builder: CutBuilder, rows: RowSnapshot, changed: Changed) -> CommitFrame | None:
        """The cut in one frame, where that can be. None: nothing was done."""
        frame = builder.whole_frame(rows, changed, self._whole)
        if frame is None:
            return None
        commit = builder.commit(changed.ended_k2)
        builder.num_bytes += self._outlet.send((frame, commit), sync=True)
        self._counters.add(rows_streamed=builder.num_rows)
        return commit

    def write(
        self,
        builder: CutBuilder,
        rows: RowSnapshot,
        ids: Mapping[str, Int64s],
        dense: DenseArrays | None,
        ended_k2: Int64s,
    ) -> CommitFrame:
        """The cut in as many frames as it takes: ``ids`` by table, distinct, then the dense weights."""
        last: tuple[Frame, ...] = ()
        for frame in builder.frames(rows, ids, self.tables, dense, self._sizes):
            builder.num_bytes += self._outlet.send(last, sync=False)
            last = (frame,)
        rows.close()
        commit = builder.commit(ended_k2)
        builder.num_bytes += self._outlet.send((*last, commit), sync=True)
        self._counters.add(rows_streamed=builder.num_rows, tombstones=builder.num_tombstones)
        return commit
