"""A fork begins with a cut that takes replicas back to its checkpoint."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stream import RowStreamer, StreamerOptions, StreamIdentity, published_since
from pipeline.wire import CutPosition, HeaderFrame, decode_frame
from tests.stream.dict_replica import DictReplica
from tests.stream.forks import fork_and_check
from tests.stream.list_transport import ListTransport
from tests.stream.memory_source import MemorySource


@given(st.integers(0, (1 << 32) - 1), st.integers(0, 5), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_each_rewind_makes_replicas_the_checkpoint(seed: int, forks: int, events: int) -> None:
    fork_and_check(seed, forks, events)


def a_stream() -> tuple[MemorySource, ListTransport]:
    """Five cuts, one a step: row n was updated last at step n, row 0 at each."""
    source, transport = MemorySource(), ListTransport()
    streamer = RowStreamer(source, transport, StreamIdentity("run", "trainer", 1), StreamerOptions(chunk_rows=2))
    source.on_step = lambda step, ids: streamer.add(step, step, ids)
    streamer.open()
    for step in range(1, 6):
        source.train({"items": [0, step], "users": [7]})
        streamer.cut()
    return source, transport


def test_rows_are_asked_for_no_further_back_than_the_step() -> None:
    _, transport = a_stream()
    header, *frames = transport.frames
    per_cut, asked = len(frames) // 5, []

    def parts() -> object:
        for cut in reversed(range(5)):
            asked.append(cut + 1)
            yield [header, *frames[cut * per_cut : (cut + 1) * per_cut]]

    ids = published_since(parts(), 3)  # type: ignore[arg-type]
    assert {name: ids_n.tolist() for name, ids_n in ids.items()} == {"items": [0, 4, 5], "users": [7]}
    assert asked == [5, 4, 3]


def test_rows_that_the_checkpoint_does_not_hold_are_withdrawn() -> None:
    before, transport = a_stream()
    replica = DictReplica()
    for data in transport.frames:
        replica.feed(data)
    source = MemorySource(generation=2, step=3)
    source.history[3], source.dense_history[3] = before.history[3], before.dense_history[3]
    streamer = RowStreamer(
        source, transport, StreamIdentity("run", "trainer", 2), previous=CutPosition(1, 5), previous_step=5
    )
    streamer.open()
    assert isinstance(decode_frame(transport.frames[-1]), HeaderFrame)
    commit = streamer.rewind({"items": np.array([0, 4, 5]), "users": np.array([7]), "not streamed": np.array([1])})
    assert (commit.num_rows, commit.num_tombstones, len(commit.ended_k2)) == (2, 2, 0)
    assert commit.position == CutPosition(2, 1) == streamer.committed
    assert streamer.committed_step == 3
    for data in transport.frames:
        replica.feed(data)
    assert replica.tables == before.history[3]
    assert transport.synced == len(transport.frames)
