"""A frame whose rows are written into its content is the frame that is encoded as a whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given

from pipeline.wire import RowRuns, RowsFrame, RunHead, decode_frame, encode_frame
from pipeline.wire.envelope import seal
from pipeline.wire.row_runs import NO_BYTES, NO_IDS
from pipeline.wire.rows_content import lay_out
from pipeline.wire.shuffle import shuffle_numbers, shuffle_rows
from tests.wire.frame_strategies import rows_frames


def fill(frame: RowsFrame) -> bytes:
    """``frame`` by way of ``lay_out``."""
    room = lay_out(replace(frame, rows=RowRuns(frame.rows.heads, NO_IDS, NO_IDS, NO_BYTES)))
    rows, shuffled = frame.rows, frame.shuffled
    parts = (
        (room.ids_at, shuffle_numbers(rows.ids_n) if "ids" in shuffled else rows.ids_n),
        (room.rows_at, shuffle_rows(rows.rows_b, rows.heads) if "rows" in shuffled else rows.rows_b),
        (room.versions_at, shuffle_numbers(rows.versions_n) if "versions" in shuffled else rows.versions_n),
    )
    for at, values in parts:
        room.content_b[at : at + values.nbytes] = np.frombuffer(values.tobytes(), np.uint8)
    return seal(room.content_b.data)


@given(rows_frames())
def test_the_bytes_are_those_of_the_whole_frame(frame: RowsFrame) -> None:
    heads = tuple(head._replace(num_dead=0) for head in frame.rows.heads)
    plain = replace(frame, rows=replace(frame.rows, heads=heads, tombstones_m=NO_IDS, columns={}))
    assert fill(plain) == encode_frame(plain)


def test_long_arrays_have_long_heads() -> None:
    for count in (31, 32, 8191, 8192, 9000):  # around where msgpack's head of a bin grows
        ids, versions = np.arange(count), np.full(count, 7)
        rows = RowRuns((_head(count),), ids, versions, np.arange(3 * count).astype(np.uint8))
        frame = RowsFrame(1, 2, 0, 3, 4, False, rows)
        assert fill(frame) == encode_frame(frame)
        decoded = decode_frame(fill(frame))
        assert isinstance(decoded, RowsFrame)
        assert decoded.rows.ids_n.tolist() == ids.tolist()


def _head(count: int) -> RunHead:
    return RunHead("t", count, 3)
