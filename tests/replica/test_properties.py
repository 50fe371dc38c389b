"""Random streams against a trainer of dicts: cuts, snapshots, generations, repeats, abandoned cuts, retention, torn frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from pipeline.replica import DamagedCut, DamagedFrame, Replica, View
from pipeline.wire.frames import CutPosition
from tests.replica.trainer import DictTrainer, MemoryTransport, assert_equal, assert_shows
from tests.replica.training import PROBES, Training


class StreamMachine(Training):
    """One trainer, and two replicas: one that always follows, one that reads now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.trainer = DictTrainer({"a": 3, "b": 1})
        self.trainer.share, self.trainer.carries = 0.5, ("slow", "raw")
        self.transport = MemoryTransport(batch=2)
        self.transport.begin(self.trainer.header())
        self.near = Replica(self.transport)  # type: ignore[arg-type]
        self.far = Replica(self.transport, stage_bytes=40, pinned_bytes=1 << 20)  # type: ignore[arg-type]
        self.views: list[tuple[View, CutPosition]] = []
        self.pending: list[bytes] = []
        self.snapshot_start = 0
        self.cut_start = 0

    @rule(chunk=st.integers(1, 6), again=st.booleans())
    def cut(self, chunk: int, again: bool) -> None:
        self.cut_start = len(self.transport.frames)
        frames = self.trainer.cut(chunk=chunk)
        self._publish(frames)
        if again:
            self.transport.publish(frames)

    @rule(chunk=st.integers(1, 6))
    def abandon(self, chunk: int) -> None:
        self._publish(self.trainer.cut(chunk=chunk, commit=False))

    @precondition(lambda self: not self.pending)
    @rule(chunk=st.integers(1, 6))
    def begin_snapshot(self, chunk: int) -> None:
        """An ordinary cut and, mixed with what comes next, every row held."""
        self.snapshot_start = len(self.transport.frames)
        self._publish(self.trainer.cut())
        self.pending = self.trainer.snapshot(chunk)

    @precondition(lambda self: bool(self.pending))
    @rule()
    def end_snapshot(self) -> None:
        self.transport.publish(self.pending)
        self.pending = []
        self.transport.trim(self.snapshot_start)

    @rule()
    def restart_trainer(self) -> None:
        """A new process: a snapshot in the making is lost, and so is what was not committed (it trains it again)."""
        self.pending = []
        self.transport.begin(self.trainer.next_generation())

    @rule(which=st.integers(0, 99), chunk=st.integers(1, 6))
    def fork(self, which: int, chunk: int) -> None:
        """A new process goes on from an earlier state and computes something else."""
        self.pending = []
        places = list(self.trainer.states)
        self.transport.begin(self.trainer.fork_at(places[which % len(places)]))
        self._publish(self.trainer.cut(chunk=chunk, rewind=True))

    @rule()
    def follow_far(self) -> None:
        self.far.apply_available()
        self._check(self.far)

    @precondition(lambda self: len(self.views) < 3)
    @rule()
    def pin(self) -> None:
        self.near.apply_available()
        self.views.append((self.near.view(), self.near.position))

    @precondition(lambda self: bool(self.views))
    @rule(which=st.integers(0, 99))
    def unpin(self, which: int) -> None:
        self.views.pop(which % len(self.views))[0].close()

    @invariant()
    def the_near_replica_follows(self) -> None:
        self.near.apply_available()
        self._check(self.near)
        assert self.near.position == self.trainer.previous

    @invariant()
    def views_stay_where_they_were_pinned(self) -> None:
        for view, position in self.views:
            assert_shows(view, self.trainer, position, PROBES)

    def teardown(self) -> None:
        self.transport.publish(self.trainer.cut())
        if not self.far.lag.waiting:
            self.far.apply_available()
        if not self.far.lag.waiting:
            assert_equal(self.far, self.trainer, PROBES)
        for replica in (self.near, self.far):
            replica.close()

    def _publish(self, frames: list[bytes]) -> None:
        """With a frame of the snapshot in the making after each."""
        for frame in frames:
            self.transport.publish([frame])
            if len(self.pending) > 1:
                self.transport.publish([self.pending.pop(0)])

    def _check(self, replica: Replica) -> None:
        with replica.view() as view:
            assert_shows(view, self.trainer, view.position, PROBES)


TestStreams: Any = StreamMachine.TestCase
TestStreams.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_torn_frame_anywhere_leaves_the_cut_before_it_or_is_noticed() -> None:
    rng = np.random.default_rng()
    trainer = DictTrainer({"a": 3, "b": 1}, seed=int(rng.integers(2**31)))
    frames = [trainer.header()]
    for _ in range(4):
        trainer.update({"a": rng.integers(0, 30, 15).tolist(), "b": [1, 2]})
        frames += trainer.cut()
    for _ in range(60):
        spoiled = list(frames)
        which = int(rng.integers(1, len(frames)))
        kind = rng.integers(4)
        if kind == 0:
            del spoiled[which]
        elif kind == 1:
            spoiled[which] = spoiled[which][: int(rng.integers(len(spoiled[which])))]
        elif kind == 2:
            byte = int(rng.integers(len(spoiled[which])))
            spoiled[which] = (
                spoiled[which][:byte]
                + bytes([spoiled[which][byte] ^ 1 << rng.integers(8)])
                + spoiled[which][byte + 1 :]
            )
        else:
            spoiled[which], spoiled[which - 1 or 1] = spoiled[which - 1 or 1], spoiled[which]
        transport = MemoryTransport()
        transport.publish(spoiled)
        replica = Replica(transport)  # type: ignore[arg-type]
        try:
            replica.apply_available()
        except (DamagedFrame, DamagedCut):
            assert replica.counters.refusals == 1
        with replica.view() as view:
            assert_shows(view, trainer, view.position, range(30))
