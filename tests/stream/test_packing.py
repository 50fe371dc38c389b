"""Frames are shuffled where it pays and compressed with a dictionary trained on the first ones; readers are told all that they need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.stream import training
from pipeline.stream.options import StreamerOptions, StreamIdentity
from pipeline.stream.packing import LEAST_ITEMS
from pipeline.stream.streamer import RowStreamer
from pipeline.wire import HeaderFrame, RowsFrame
from pipeline.wire.blocks import block_ends
from pipeline.wire.encoding import frame_content
from pipeline.wire.envelope import seal
from pipeline.wire.reading import FrameReader
from tests.stream.dict_replica import DictReplica
from tests.stream.list_transport import ListTransport
from tests.stream.memory_source import MemorySource
from tests.stream.scenario import grouped

MANY = list(range(LEAST_ITEMS))


class Bench:
    """A streamer over dictionaries, and what it published."""

    def __init__(self, codec: str = "fp16", dictionary: bytes = b"", encodes: bool = True, **options: Any) -> None:
        self.source, self.transport = MemorySource(codec=codec, generation=3, encodes=encodes), ListTransport()
        identity = StreamIdentity("run", "trainer", 3)
        self.streamer = RowStreamer(self.source, self.transport, identity, StreamerOptions(**options))
        self.streamer.open()
        self.streamer.adopt_dictionary(dictionary)
        self.source.on_step = lambda step, ids: self.streamer.add(step, step, grouped(ids))

    def cut(self, ids: dict[str, list[int]], forget: dict[str, list[int]] | None = None) -> RowsFrame:
        """The rows frame of a cut of one step."""
        self.source.train(ids, forget or {})
        self.streamer.cut()
        return next(frame for frame in reversed(self.frames()) if isinstance(frame, RowsFrame))

    def frames(self) -> list[Any]:
        reader = FrameReader()
        return [reader.read(data) for data in self.transport.frames]

    def check(self) -> None:
        replica = DictReplica()
        for data in self.transport.frames:
            replica.feed(data)
        assert replica.step == self.source.step
        found = {name: {key: version for key, (_, version) in rows.items()} for name, rows in replica.tables.items()}
        history = self.source.history[self.source.step]
        assert found == {name: {key: version for key, (_, version) in rows.items()} for name, rows in history.items()}


@pytest.mark.parametrize("encodes", [True, False])
@pytest.mark.parametrize(
    ("codec", "shuffle", "expected"),
    [
        ("fp16", "auto", ("ids", "versions")),
        ("fp32", "auto", ("ids", "versions")),
        ("int8", "auto", ("ids", "rows", "versions")),
        ("bf16", "auto", ("ids", "rows", "versions")),
        ("int4", "never", ()),
        ("fp32", "always", ("ids", "rows", "versions")),
    ],
)
def test_what_is_shuffled_depends_on_the_codec(
    codec: str, shuffle: str, expected: tuple[str, ...], encodes: bool
) -> None:
    bench = Bench(codec, shuffle=shuffle, encodes=encodes)
    frame = bench.cut({"users": MANY, "items": [3, 9]})
    assert frame.shuffled == expected
    assert sorted(frame.rows.ids_n.tolist()) == sorted([*MANY, 3, 9])
    bench.check()


def test_few_rows_are_left_as_they_are_and_dead_ids_are_shuffled_too() -> None:
    bench = Bench("int8")
    assert bench.cut({"users": [4, 5], "items": [3]}).shuffled == ()
    bench.cut({"users": MANY, "items": MANY})
    frame = bench.cut({"users": [1]}, {"items": MANY})
    assert frame.shuffled == ("ids", "rows", "versions", "dead")
    assert np.array_equal(frame.rows.tombstones_m, MANY)
    bench.check()


@pytest.mark.parametrize("encodes", [True, False])
@pytest.mark.parametrize(
    ("codec", "level", "expected"),
    [("int8", 3, ("ids",)), ("int8", -1, ()), ("fp16", 3, ()), ("int4", 1, ("ids",))],
)
def test_ids_are_told_as_differences_where_they_rise_or_bytes_count(
    codec: str, level: int, expected: tuple[str, ...], encodes: bool
) -> None:
    bench = Bench(codec, encodes=encodes, zstd_level=level)
    frame = bench.cut({"users": MANY, "items": [3, 9]})
    assert frame.delta == (expected if encodes else ("ids",)), "in the general way, ids come in order"
    assert not frame.delta or {part.table: part.ids_n.tolist() for part in frame.rows} == {
        "users": MANY,
        "items": [3, 9],
    }
    bench.check()


@pytest.mark.parametrize("encodes", [True, False])
@pytest.mark.parametrize("level", [-1, 1])
def test_blocks_end_with_the_places_of_a_row_where_bytes_count(encodes: bool, level: int) -> None:
    bench = Bench("int8", encodes=encodes, zstd_level=level)
    frame = bench.cut({"users": MANY, "items": MANY})
    ends = block_ends(frame)
    assert ends
    assert bench.transport.frames[-2] == seal(frame_content(frame), level, ends=ends if level > 0 else ())
    bench.check()


def test_dead_ids_are_told_as_differences_too_and_what_does_not_rise_is_not() -> None:
    bench = Bench("int8")
    bench.cut({"users": MANY, "items": MANY})
    frame = bench.cut({"users": [1]}, {"items": MANY})
    assert frame.delta == ("ids", "dead")
    assert frame.rows.tombstones_m.tolist() == MANY
    packer = StreamerOptions().packer(bench.source.tables)
    turned = replace(frame, rows=replace(frame.rows, tombstones_m=frame.rows.tombstones_m[::-1]))
    assert packer.arranged(turned).delta == ("ids",)
    bench.check()


def cuts_until_trained(bench: Bench) -> None:
    for step in range(training.NUM_SAMPLES):
        bench.cut({"users": [step, step + 7], "items": [step % 9]})


def test_a_dictionary_is_trained_on_the_first_frames_and_brought_by_a_header() -> None:
    bench = Bench(dictionary_bytes=2048)
    cuts_until_trained(bench)
    first, *later = [frame for frame in bench.frames() if isinstance(frame, HeaderFrame)]
    assert first.dictionary == b""
    (second,) = later
    assert 0 < len(second.dictionary) <= 2048
    cuts_until_trained(bench)
    sizes = [len(data) for data in bench.transport.frames]
    assert sum(sizes[-20:]) < 0.8 * sum(sizes[1:21]), "frames did not get smaller"
    bench.check()


def test_what_retention_leaves_begins_with_the_dictionary() -> None:
    bench = Bench(dictionary_bytes=2048)
    cuts_until_trained(bench)
    bench.streamer.snapshot_cut()
    bench.source.train({"users": [1]}, {})
    bench.streamer.cut()
    kept = bench.transport.held
    assert len(kept) < 12, "nothing was let go, so this shows nothing"
    replica, reader = DictReplica(), FrameReader()
    assert isinstance(reader.read(kept[0]), HeaderFrame)
    for _ in range(2):  # cuts behind a snapshot cut may have come before it
        replica.read_again()
        for data in kept:
            replica.feed(data)
    assert replica.step == bench.source.step
    assert {name: set(rows) for name, rows in replica.tables.items()} == {
        name: set(rows) for name, rows in bench.source.history[bench.source.step].items()
    }


def test_a_later_life_goes_on_with_the_dictionary_or_without() -> None:
    bench = Bench(dictionary_bytes=2048)
    cuts_until_trained(bench)
    header = next(frame for frame in reversed(bench.frames()) if isinstance(frame, HeaderFrame))
    again = Bench(dictionary_bytes=999, dictionary=header.dictionary)
    again.cut({"users": [1], "items": [2]})
    assert [frame.dictionary for frame in again.frames() if isinstance(frame, HeaderFrame)] == [b"", header.dictionary]
    assert again.transport.frames[-1][6] == 2, "the first frames are compressed with it"
    again.check()
    without = Bench(dictionary=header.dictionary)
    without.cut({"users": [1], "items": [2]})
    assert [frame.dictionary for frame in without.frames() if isinstance(frame, HeaderFrame)] == [b""]
    assert without.transport.frames[-1][6] == 1


def test_frames_that_have_nothing_in_common_make_no_dictionary() -> None:
    trainer = training.DictionaryTrainer(1024)
    assert not trainer.add(b"")
    assert trainer.train() == b""
