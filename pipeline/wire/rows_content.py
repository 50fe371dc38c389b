"""The content of a rows frame, laid out before its rows are there: who has them writes them straight into its bytes.

The bytes are those that ``encoding.encode_frame`` would compress for the same frame without tombstones and further columns,
once ``arrange_content`` has done what shuffles and differences ask for. Before that, rows may be put into the order of their ids.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import msgpack
import numpy as np
import numpy.typing as npt

from pipeline.rows.room import RowRoom
from pipeline.wire.encoding import head_of_rows
from pipeline.wire.frames import RowsFrame
from pipeline.wire.shuffle import differences, shuffle_numbers, shuffle_rows

ARRAYS: Final = 3
"""Ids, rows and versions."""


class Places(NamedTuple):
    """Offsets in a frame's content, and what stands before its arrays there."""

    ids_at: int
    rows_at: int
    versions_at: int
    ids_head: bytes
    rows_head: bytes
    versions_head: bytes


def places(frame: RowsFrame) -> Places:
    """Where ids, rows and versions lie in the content of ``frame``, of which only the heads need be there."""
    count = sum(run.num_rows for run in frame.rows.heads)
    rows_bytes = sum(run.num_rows * run.row_bytes for run in frame.rows.heads)
    head = msgpack.packb(head_of_rows(frame)) + _bin_head("ids", 8 * count)
    rows_head, versions_head = _bin_head("rows", rows_bytes), _bin_head("versions", 8 * count)
    rows_at = len(head) + 8 * count + len(rows_head)
    return Places(len(head), rows_at, rows_at + rows_bytes + len(versions_head), head, rows_head, versions_head)


def lay_out(frame: RowsFrame) -> RowRoom:
    """Room for the ids, rows and versions that the runs of ``frame`` announce, with all its other fields around it."""
    at = places(frame)
    content_b = np.empty(at.versions_at + 8 * sum(run.num_rows for run in frame.rows.heads), dtype=np.uint8)
    view = content_b.data
    view[: at.ids_at] = at.ids_head
    # The first byte says how many fields there are, less than 16; `packb` knew of those before the arrays.
    content_b[0] += ARRAYS
    view[at.rows_at - len(at.rows_head) : at.rows_at] = at.rows_head
    view[at.versions_at - len(at.versions_head) : at.versions_at] = at.versions_head
    return RowRoom(content_b, at.ids_at, at.rows_at, at.versions_at)


def sort_content(room: RowRoom, frame: RowsFrame) -> None:
    """Put the rows of each run into the order of their ids, where they lie. What is there is not arranged yet."""
    ids_n, versions_n = _numbers(room, frame, room.ids_at).copy(), _numbers(room, frame, room.versions_at).copy()
    row, byte = 0, room.rows_at
    for run in frame.rows.heads:
        order_n = np.argsort(ids_n[row : row + run.num_rows])
        for numbers_n in (ids_n, versions_n):
            numbers_n[row : row + run.num_rows] = numbers_n[row : row + run.num_rows][order_n]
        rows_nb = room.content_b[byte : byte + run.num_rows * run.row_bytes].reshape(run.num_rows, run.row_bytes)
        rows_nb[:] = np.take(rows_nb, order_n, axis=0)
        row, byte = row + run.num_rows, byte + run.num_rows * run.row_bytes
    _numbers(room, frame, room.ids_at)[:] = ids_n
    _numbers(room, frame, room.versions_at)[:] = versions_n


def arrange_content(room: RowRoom, frame: RowsFrame) -> None:
    """Shuffle, and tell as differences, what lies in ``room`` as it is and by ``frame`` is to travel so; where it lies."""
    runs = frame.rows.heads
    if "rows" in frame.shuffled:
        rows_b = room.content_b[room.rows_at : room.rows_at + sum(run.num_rows * run.row_bytes for run in runs)]
        rows_b[:] = shuffle_rows(rows_b, runs)
    for name, at in (("ids", room.ids_at), ("versions", room.versions_at)):
        numbers_n = _numbers(room, frame, at)
        if name in frame.delta:
            numbers_n[:] = differences(numbers_n)
        if name in frame.shuffled:
            numbers_n.view(np.uint8)[:] = shuffle_numbers(numbers_n)


def _numbers(room: RowRoom, frame: RowsFrame, at: int) -> npt.NDArray[np.int64]:
    """Those that begin at this byte."""
    return room.content_b[at : at + 8 * sum(run.num_rows for run in frame.rows.heads)].view("<i8")


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
