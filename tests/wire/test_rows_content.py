"""A frame whose rows are written into its content is the frame that is encoded as a whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import zstandard
from hypothesis import given

from pipeline.wire import RowRuns, RowsFrame, RunHead, decode_frame, encode_frame
from pipeline.wire.blocks import block_ends
from pipeline.wire.encoding import frame_content
from pipeline.wire.envelope import ENVELOPE_BYTES, seal
from pipeline.wire.row_runs import NO_BYTES, NO_IDS
from pipeline.wire.rows_content import arrange_content, lay_out, sort_content
from pipeline.wire.shuffle import shuffle_rows
from tests.wire.frame_strategies import rows_frames, same
from tests.wire.parts import join_runs


def fill(frame: RowsFrame, sort: bool = False) -> bytes:
    """``frame`` by way of ``lay_out``."""
    room = lay_out(replace(frame, rows=RowRuns(frame.rows.heads, NO_IDS, NO_IDS, NO_BYTES)))
    rows = frame.rows
    for at, values in ((room.ids_at, rows.ids_n), (room.rows_at, rows.rows_b), (room.versions_at, rows.versions_n)):
        room.content_b[at : at + values.nbytes] = np.frombuffer(values.tobytes(), np.uint8)
    if sort:
        sort_content(room, frame)
    arrange_content(room, frame)
    return seal(room.content_b.data)


def plain(frame: RowsFrame) -> RowsFrame:
    """Without what ``lay_out`` has no room for."""
    heads = tuple(head._replace(num_dead=0) for head in frame.rows.heads)
    return replace(frame, rows=replace(frame.rows, heads=heads, tombstones_m=NO_IDS, columns={}))


@given(rows_frames())
def test_the_bytes_are_those_of_the_whole_frame(frame: RowsFrame) -> None:
    frame = plain(frame)
    assert fill(frame) == encode_frame(frame)


@given(rows_frames())
def test_rows_put_into_the_order_of_their_ids_keep_what_is_theirs(frame: RowsFrame) -> None:
    parts = list(plain(frame).rows)
    orders = [np.argsort(part.ids_n) for part in parts]
    expected = [
        replace(part, ids_n=part.ids_n[order], rows_nb=part.rows_nb[order], versions_n=part.versions_n[order])
        for part, order in zip(parts, orders, strict=True)
    ]
    assert same(decode_frame(fill(plain(frame), sort=True)), replace(frame, rows=join_runs(expected)))


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


def test_blocks_end_with_the_places_of_a_row_and_a_reader_sees_nothing_of_them() -> None:
    rng = np.random.default_rng(3)
    heads = RunHead("t", 9000, 5), RunHead("few", 1000, 7), RunHead("none", 0, 0, 2)
    rows_b = rng.integers(0, 256, 52000).astype(np.uint8)
    rows = RowRuns(heads, rng.integers(0, 1 << 40, 10000), np.full(10000, 7), rows_b, np.arange(2))
    frame = RowsFrame(1, 2, 0, 3, 4, False, rows, shuffled=("ids", "rows"))
    content, ends = frame_content(frame), block_ends(frame)
    first = content.index(shuffle_rows(rows_b, heads))
    assert ends == [first, *(first + 9000 * place for place in range(1, 6)), first + 49000, first + 52000]
    assert block_ends(replace(frame, shuffled=("ids",))) == []
    for level in (-1, 3):
        sealed = seal(content, level, ends=ends)
        assert same(decode_frame(sealed), frame)
        sizes = block_sizes(sealed[ENVELOPE_BYTES:])
        assert set(ends) <= set(np.cumsum(sizes).tolist()), "a block goes on over an end"


def block_sizes(body: bytes) -> list[int]:
    """Of the blocks of one zstd frame, before compression."""
    stream, at, sizes = zstandard.ZstdDecompressor().decompressobj(), zstandard.frame_header_size(body), list[int]()
    assert stream.decompress(body[:at]) == b""
    while at < len(body):
        kind, stored = body[at] >> 1 & 3, int.from_bytes(body[at : at + 3], "little") >> 3
        size = 3 + (1 if kind == 1 else stored)
        sizes.append(len(stream.decompress(body[at : at + size])))
        at += size
    return sizes
