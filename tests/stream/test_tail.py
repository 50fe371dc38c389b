"""The end of a stream is found from behind, and no further back than it must be looked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.stream import RowStreamer, StreamerOptions, find_tail
from pipeline.wire import CommitFrame, decode_frame
from tests.stream.list_transport import ListTransport
from tests.stream.memory_source import MemorySource
from tests.stream.test_streamer import IDENTITY


def a_stream(cuts: int, *, ended: bool = False) -> tuple[list[bytes], list[CommitFrame]]:
    """Header first; each cut has three rows frames and its commit frame; ``ended``: one that only says so follows."""
    source, transport = MemorySource(), ListTransport()
    streamer = RowStreamer(source, transport, IDENTITY, StreamerOptions(chunk_rows=2))
    source.on_step = lambda step, ids: streamer.add(step, step, ids)
    streamer.open()
    for cut in range(cuts):
        source.train({"items": range(10 * cut, 10 * cut + 6)})
        streamer.cut()
    if ended:
        streamer.finish()
    frames = list(transport.frames)
    commits = [frame for frame in map(decode_frame, frames) if isinstance(frame, CommitFrame)]
    return frames, commits


def parts_of(header: bytes, frames: Sequence[bytes], ends: Sequence[int], asked: list[int]) -> Iterator[list[bytes]]:
    """Pieces that end at ``ends``, the newest first, each beginning with the header; tells which were asked for."""
    for number in reversed(range(len(ends))):
        asked.append(number)
        start = ends[number - 1] if number else 0
        yield [header, *frames[start : ends[number]]]


def test_the_last_committed_cut_is_found_with_its_ids() -> None:
    (header, *frames), commits = a_stream(3)
    asked: list[int] = []
    tail = find_tail(parts_of(header, frames[:-1], [4, 8, len(frames) - 1], asked))
    assert tail is not None
    assert tail.commit.position == commits[1].position, "the third was not committed"
    assert tail.whole
    assert np.sort(tail.ids["items"]).tolist() == list(range(10, 16))
    assert asked == [2, 1], "no further back than that cut"


def test_a_cut_that_lies_in_two_pieces_is_put_together() -> None:
    (header, *frames), commits = a_stream(3)
    tail = find_tail(parts_of(header, frames, [4, 9, len(frames)], []))
    assert tail is not None
    assert tail.commit.position == commits[2].position
    assert tail.whole
    assert np.sort(tail.ids["items"]).tolist() == list(range(20, 26))


def test_a_cut_whose_first_frames_are_gone_is_not_whole_and_not_looked_for_behind_an_earlier_commit() -> None:
    (header, *frames), commits = a_stream(3)
    asked: list[int] = []
    without = frames[:8] + frames[9:]
    tail = find_tail(parts_of(header, without, [4, 8, len(without)], asked))
    assert tail is not None
    assert tail.commit.position == commits[2].position
    assert not tail.whole
    assert asked == [2, 1]


def test_where_nothing_was_committed_there_is_no_tail() -> None:
    (header, *frames), _ = a_stream(1)
    assert find_tail(parts_of(header, frames[:-1], [2, 3], [])) is None


def test_where_the_last_cut_only_says_that_the_run_has_ended_the_one_before_it_shows_the_rows() -> None:
    (header, *frames), commits = a_stream(2, ended=True)
    tail = find_tail(parts_of(header, frames, [4, len(frames)], []))
    assert tail is not None
    assert (tail.commit.position, tail.shown.position) == (commits[2].position, commits[1].position)
    assert tail.commit.end
    assert tail.whole
    assert np.sort(tail.ids["items"]).tolist() == list(range(10, 16))
