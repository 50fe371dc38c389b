"""Streams in shards: random lives of them, and what they take."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.stream import Journal, RowStreamer, SnapshotLost, StreamerOptions, StreamIdentity
from pipeline.stream.sharded import side_by_side, split_ids
from pipeline.wire import CommitFrame, CutPosition, HeaderFrame, decode_frame, encode_frame
from tests.stream.list_transport import ListTransport
from tests.stream.memory_source import MemorySource
from tests.stream.sharded_life import live_in_shards_and_check

IDENTITY = StreamIdentity("run", "trainer", 1)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_fails_and_dies_a_replica_is_the_source_at_each_step_it_shows(seed: int) -> None:
    live_in_shards_and_check(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 400))
def test_the_same_many_times(seed: int) -> None:
    live_in_shards_and_check(seed)


def a_stream(cuts: int = 2) -> tuple[MemorySource, list[ListTransport], RowStreamer]:
    source, transports = MemorySource(), [ListTransport(), ListTransport()]
    streamer = RowStreamer(source, transports, IDENTITY, StreamerOptions(chunk_rows=4, dense=True))
    streamer.open()
    source.on_step = lambda step, ids: streamer.add(step, step, ids)
    for cut in range(cuts):
        source.train({"items": range(10 * cut, 10 * cut + 20), "users": [cut]})
        streamer.cut()
    return source, transports, streamer


def commits(transport: ListTransport) -> list[CommitFrame]:
    return [frame for frame in map(decode_frame, transport.frames) if isinstance(frame, CommitFrame)]


def test_each_shard_is_a_stream_of_its_own() -> None:
    _, transports, streamer = a_stream()
    headers = [decode_frame(transport.frames[0]) for transport in transports]
    assert [(h.shard, h.num_shards) for h in headers if isinstance(h, HeaderFrame)] == [(0, 2), (1, 2)]
    both = [commits(transport) for transport in transports]
    assert [commit.position for commit in both[0]] == [commit.position for commit in both[1]]
    assert all(commit.num_rows > 0 for share in both for commit in share)
    assert [commit.dense_digest is None for commit in (both[0][0], both[1][0])] == [False, True]
    assert streamer.counters.rows_streamed == sum(commit.num_rows for share in both for commit in share) == 42
    assert streamer.counters.cuts == 2


def test_a_cut_that_one_shard_lacks_is_not_the_last_one() -> None:
    _, transports, _ = a_stream()
    whole = Journal(transports).tail()
    assert whole is not None
    assert whole.commit.position == CutPosition(1, 2)
    assert whole.whole
    assert np.sort(whole.ids["items"]).tolist() == list(range(10, 30))
    transports[1].frames.pop()
    before = Journal(transports).tail()
    assert before is not None
    assert before.commit.position == CutPosition(1, 1)
    assert np.sort(before.ids["items"]).tolist() == list(range(20))
    del transports[1].frames[1:]
    assert Journal(transports).tail() is None


def test_what_a_replaced_trainer_publishes_behind_a_header_is_not_the_last_cut() -> None:
    source, transports, streamer = a_stream()
    for transport in transports:
        header = decode_frame(transport.header)
        assert isinstance(header, HeaderFrame)
        newer = {name: getattr(header, name) for name in header.__dataclass_fields__} | {"generation": 2}
        transport.begin(encode_frame(HeaderFrame(**newer)))
    source.train({"items": [1]})
    assert streamer.cut() is not None
    tail = Journal(transports).tail()
    assert tail is not None
    assert tail.commit.position == CutPosition(1, 2)


def test_a_failing_shard_leaves_the_cut_to_the_next_one() -> None:
    source, transports, streamer = a_stream(1)
    transports[1].fails = OSError("no room")
    source.train({"items": [3, 4, 5, 6]})
    with pytest.raises(OSError, match="no room"):
        streamer.cut()
    assert streamer.committed == CutPosition(1, 1)
    commit = streamer.cut()
    assert commit is not None
    assert (commit.position, commit.previous, commit.num_rows) == (CutPosition(1, 3), CutPosition(1, 1), 4)


def test_ids_are_split_in_order_and_each_once() -> None:
    ids = {"users": np.arange(100), "items": np.array([-5, 7], dtype=np.int64), "none": np.empty(0, dtype=np.int64)}
    split = split_ids(ids, 3)
    assert all("none" not in shard for shard in split)
    for table in ("users", "items"):
        parts = [shard[table] for shard in split if table in shard]
        assert np.array_equal(np.sort(np.concatenate(parts)), np.sort(ids[table]))
        assert all((np.diff(part) > 0).all() for part in parts)


def test_of_several_errors_a_lost_snapshot_is_the_least() -> None:
    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(OSError, match="broken"):
        side_by_side([lambda: fail(SnapshotLost("lost")), lambda: fail(OSError("broken"))])
    with pytest.raises(SnapshotLost):
        side_by_side([lambda: fail(SnapshotLost("lost")), lambda: None])
