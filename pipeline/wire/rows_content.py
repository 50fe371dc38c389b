"""The content of a rows frame, laid out before its rows are there: who has them writes them straight into its bytes.

The bytes are those that ``encoding.encode_frame`` would compress for the same frame without tombstones and further columns;
what of it travels shuffled is shuffled by ``shuffle_content``.
"""

from __future__ import annotations

import struct
from typing import Final

import msgpack
import numpy as np

from pipeline.rows.room import RowRoom
from pipeline.rows.transpose import transpose_bytes
from pipeline.wire.encoding import piece_of_cut
from pipeline.wire.frames import RowsFrame
from pipeline.wire.shuffle import shuffle_rows

_FIX_MAP: Final = 0x80
"""Msgpack's head of a map of less than 16 fields, their number in its low bits."""


def lay_out(frame: RowsFrame) -> RowRoom:
    """Room for the ids, rows and versions that the runs of ``frame`` announce, with all its other fields around it."""
    runs, fields = frame.rows.heads, piece_of_cut("rows", frame)
    count = sum(run.num_rows for run in runs)
    fields["runs"] = runs
    if frame.shuffled:
        fields["shuffled"] = frame.shuffled
    head = bytearray(msgpack.packb(fields))
    head[0] = _FIX_MAP | len(fields) + 3
    ids_head, rows_bytes = _bin_head("ids", 8 * count), sum(run.num_rows * run.row_bytes for run in runs)
    rows_head, versions_head = _bin_head("rows", rows_bytes), _bin_head("versions", 8 * count)
    ids_at = len(head) + len(ids_head)
    rows_at = ids_at + 8 * count + len(rows_head)
    versions_at = rows_at + rows_bytes + len(versions_head)
    content_b = np.empty(versions_at + 8 * count, dtype=np.uint8)
    view = content_b.data
    view[:ids_at] = head + ids_head
    view[rows_at - len(rows_head) : rows_at] = rows_head
    view[versions_at - len(versions_head) : versions_at] = versions_head
    return RowRoom(content_b, ids_at, rows_at, versions_at)


def shuffle_content(room: RowRoom, frame: RowsFrame) -> None:
    """Shuffle what lies in ``room`` as it is, and by ``frame`` is to travel shuffled, where it lies."""
    runs, count = frame.rows.heads, sum(run.num_rows for run in frame.rows.heads)
    if "rows" in frame.shuffled:
        rows_b = room.content_b[room.rows_at : room.rows_at + sum(run.num_rows * run.row_bytes for run in runs)]
        rows_b[:] = shuffle_rows(rows_b, runs)
    for name, at in (("ids", room.ids_at), ("versions", room.versions_at)):
        if name in frame.shuffled:
            numbers_b = room.content_b[at : at + 8 * count]
            numbers_b[:] = transpose_bytes(numbers_b, count, 8)


def _bin_head(name: str, nbytes: int) -> bytes:
    """A key and the head of its bin, the shortest that msgpack has."""
    if nbytes < 1 << 8:
        head = struct.pack(">BB", 0xC4, nbytes)
    elif nbytes < 1 << 16:
        head = struct.pack(">BH", 0xC5, nbytes)
    else:
        head = struct.pack(">BI", 0xC6, nbytes)
    packed: bytes = msgpack.packb(name)
    return packed + head
