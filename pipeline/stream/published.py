"""What a fork has to take back: the rows that its stream carries since the step where it leaves it.

The stream itself is the journal of these ids: a cut's frames lie in it before its commit frame does. What lies before a snapshot cut
may be gone, but that names every row that was held, with its version. (Rows that expired before that it does not name:
whoever may have some takes all rows back.) Frames of cuts that were not committed count too: replicas never had their rows, and to say
once more how those stand does no harm.

What a power failure took from the end of the stream, no replica has that lives in the memory of the same machine. One that keeps rows
elsewhere will need each cut's frames durable before its commit frame is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.rows.version import MAX_STEP
from pipeline.stream.merging import distinct_ids
from pipeline.stream.source import Int64s
from pipeline.wire.frames import CommitFrame, CutPosition, RowsFrame
from pipeline.wire.reading import FrameReader


def published_since(
    parts: Iterable[Sequence[bytes]], step: int, newest: CutPosition | None = None
) -> dict[str, Int64s]:
    """Ids by table, distinct and rising, of the rows that were published in a version of a step behind ``step``, or as gone.

    ``parts`` as for ``find_tail``. They are read back to an ordinary cut of ``step`` or before: all that a replica had there was of no
    later step, for only a rewind cut lowers the step, and takes later rows back. A cut behind ``newest`` is none that a replica had: a
    rewind cut that not all shards have took nothing back. Raises FrameError.
    """
    found: dict[str, list[Int64s]] = {}
    for part in parts:
        reached, reader = False, FrameReader()
        for data in part:
            frame = reader.read(data)
            if isinstance(frame, RowsFrame):
                _add(found, frame, step)
            elif isinstance(frame, CommitFrame):
                had = newest is None or frame.position <= newest
                reached |= had and not frame.snapshot and frame.step <= step
        found = {table: [ids_n] for table, ids_n in distinct_ids(found).items()}
        if reached:
            break
    return {table: ids_n for table, (ids_n,) in found.items()}


def _add(found: dict[str, list[Int64s]], frame: RowsFrame, step: int) -> None:
    for run in frame.rows:
        later_n = run.ids_n[(run.versions_n & MAX_STEP) > step]
        found.setdefault(run.table, []).extend((later_n, run.tombstones_m))
