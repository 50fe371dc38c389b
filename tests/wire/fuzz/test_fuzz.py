"""Whatever comes instead of a frame or a segment: no crash, no memory taken on its word, no row changed."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pipeline.replica import Replica, ReplicaError
from pipeline.wire import FileTransport, FrameError, FrameLimits, Position, WireError
from pipeline.wire.encoding import decode_frame
from pipeline.wire.frames import HeaderFrame
from pipeline.wire.reading import FrameReader
from tests.replica.trainer import DictTrainer, MemoryTransport, digest_of
from tests.wire.frame_strategies import a_dictionary
from tests.wire.fuzz.mutations import BLIND, FrameSurgeon, Mutation, change_a_record

LIMITS = FrameLimits(frame_bytes=1 << 18, content_bytes=1 << 18, rows=1 << 12, dense_bytes=1 << 18)
BOUND_BYTES = 4 << 20
"""What a frame may take while it is looked at: some times what the limits allow it to be."""
FRAMES = {"short": 4_000, "long": 1_000_000}
SEGMENTS = {"short": 500, "long": 100_000}
EFFORTS = ["short", pytest.param("long", marks=pytest.mark.long)]


class Life:
    """A stream with frames of all kinds. Of each the header before it; and the digests of all states the trainer was in."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        trainer = DictTrainer({"items": 4, "users": 8}, codec="fp16", seed=seed)
        trainer.dense, trainer.share = {"w": trainer.rng.normal(size=7), "b": trainer.rng.normal(size=(2, 2))}, 0.5
        self.frames = [trainer.header()]
        for n in range(12):
            trainer.update({name: rng.sample(range(-9, 30), 6) for name in trainer.specs})
            trainer.forget("items", rng.sample(range(-9, 30), 2))
            trainer.shuffled = rng.choice([(), ("ids", "rows", "versions", "dead")])
            trainer.delta = rng.choice([(), ("ids", "versions", "dead")])
            self.frames += trainer.cut()
            if n in (4, 9):
                trainer.dictionary = a_dictionary()
                self.frames += [trainer.header(), *trainer.snapshot()]
        self.frames += trainer.cut(end=True)
        self.dictionary = trainer.dictionary
        self.digests = {digest_of(model) for model in trainer.states.values()}
        reader, self.headers = FrameReader(), list[HeaderFrame | None]()
        for data in self.frames:
            self.headers.append(reader.header)
            reader.read(data)


@contextmanager
def bounded_memory() -> Iterator[None]:
    """What is done inside takes at most ``BOUND_BYTES`` more than stood there before."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    yield
    assert tracemalloc.get_traced_memory()[1] - before < BOUND_BYTES


@pytest.fixture
def traced() -> Iterator[None]:
    """What is compiled or imported at the first frame is none of its bytes."""
    life = Life(0)
    feed(life.frames, life.digests)
    tracemalloc.start()
    yield
    tracemalloc.stop()


def changes(rng: random.Random, blind: Sequence[Mutation], knowing: Sequence[Mutation], data: bytes) -> bytes:
    """``data`` in another way, half of the time by somebody who knows the format."""
    return rng.choice(knowing if rng.random() < 0.5 else blind)(rng, data)


def feed(frames: Sequence[bytes], digests: set[int]) -> None:
    """A replica takes what comes until it refuses; at each moment it is the trainer in one of its states."""
    transport = MemoryTransport(batch=len(frames))
    transport.publish(frames)
    with Replica(transport, limits=LIMITS, stage_bytes=1 << 16) as replica:  # type: ignore[arg-type]
        with suppress(ReplicaError):
            replica.apply_available()
        with replica.view() as view:
            assert view.digest() in digests


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.usefixtures("traced")
def test_no_changed_frame_takes_memory_or_changes_a_row(effort: str) -> None:
    rng = random.Random(1)
    fed = 0
    for round_ in range(FRAMES[effort] // 2000):
        life = Life(round_)
        surgeon = FrameSurgeon(life.dictionary)
        for _ in range(2000):
            at = rng.randrange(len(life.frames))
            changed = changes(rng, BLIND, surgeon.mutations, life.frames[at])
            with bounded_memory():
                try:
                    decode_frame(changed, LIMITS, life.headers[at])
                except FrameError:
                    continue
            fed += 1
            with bounded_memory():
                feed([*life.frames[:at], changed, *life.frames[at + 1 :]], life.digests)
    assert fed > FRAMES[effort] // 50, "hardly a changed frame got past the first look: they test nothing"


def read(directory: Path) -> list[bytes]:
    """What a reader is given before it is told of damage, or before what is there ends."""
    transport, found = FileTransport(str(directory)), list[bytes]()
    try:
        reading = transport.subscribe(Position(1, 0))
        with suppress(WireError):
            while some := reading.next(0):
                found += [payload for _, payload in some]
            reading.check_end()
    finally:
        transport.close()
    return found


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.usefixtures("traced")
def test_no_changed_segment_takes_memory_or_delivers_another_frame(effort: str, memory_path: Path) -> None:
    rng, life, stream = random.Random(2), Life(3), memory_path / "stream"
    transport = FileTransport(str(stream))
    transport.claim()
    transport.begin(life.frames[0])
    transport.publish(life.frames[1:], sync=True)
    transport.close()
    (segment,) = stream.glob("*.seg")
    whole = segment.read_bytes()
    for _ in range(SEGMENTS[effort]):
        segment.write_bytes(changes(rng, BLIND, [change_a_record], whole))
        with bounded_memory():
            found = read(stream)
        odd = [n for n, data in enumerate(found) if n >= len(life.frames) or data != life.frames[n]]
        if odd:  # a record made anew with another payload: the frame's own checks have to tell
            with bounded_memory():
                feed(found, life.digests)
