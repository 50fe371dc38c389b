"""Random streams in shards against a trainer of dicts: late shards, repeats, cuts that only some shards have, trainers that were replaced
and publish on, generations, forks, snapshot cuts, retention.

A replica is at every moment the trainer at some committed cut, and never goes back but where a fork takes it.
"""

from __future__ import annotations

from typing import Any, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from pipeline.replica import Replica
from pipeline.wire.frames import CutPosition
from tests.replica.shards import LateTransport, ShardedTrainer, Shares
from tests.replica.trainer import assert_equal, assert_shows
from tests.replica.training import IDS, PROBES, Training

CHUNKS = st.integers(1, 6)
SHARDS = st.integers(0, 2)


class ShardsMachine(Training):
    """One trainer, and two replicas: one that always follows what was delivered, one that reads now and then in little memory."""

    trainer: ShardedTrainer

    @initialize(num_shards=st.integers(2, 3))
    def begin(self, num_shards: int) -> None:
        self.trainer = ShardedTrainer({"a": 3, "b": 1}, num_shards)
        self.trainer.share = 0.5
        self.transports = [LateTransport() for _ in range(num_shards)]
        for transport, header in zip(self.transports, self.trainer.headers(), strict=True):
            transport.begin(header)
        self.near = Replica(self.transports)  # type: ignore[arg-type]
        self.far = Replica(self.transports, stage_bytes=80)  # type: ignore[arg-type]
        self.shown: dict[Replica, tuple[CutPosition, int]] = {}
        self.newest = self.trainer.previous
        self.pending: Shares = []
        self.zombie: ShardedTrainer | None = None

    @rule(chunk=CHUNKS, again=st.none() | SHARDS, outcome=st.sampled_from(["acknowledged", "unheard"]))
    def cut(self, chunk: int, again: int | None, outcome: Literal["acknowledged", "unheard"]) -> None:
        """``again``: a shard that gets all frames of the cut twice."""
        shares = self.trainer.cut_shares(chunk=chunk, outcome=outcome)
        self.newest = CutPosition(self.trainer.generation, self.trainer.number)
        self._publish(shares)
        if again is not None:
            which = again % len(shares)
            self.transports[which].publish(shares[which])

    @rule(
        chunk=CHUNKS, which=SHARDS, left=st.integers(1, 9), others=st.lists(st.integers(0, 9), min_size=3, max_size=3)
    )
    def fail(self, chunk: int, which: int, left: int, others: list[int]) -> None:
        """The end of a cut is missing on at least one shard."""
        shares = self.trainer.cut_shares(chunk=chunk, outcome="failed")
        gone = [left if number == which % len(shares) else others[number] for number in range(len(shares))]
        self._publish([share[: max(len(share) - least, 0)] for share, least in zip(shares, gone, strict=True)])

    @rule(which=SHARDS, count=st.integers(1, 12))
    def deliver(self, which: int, count: int) -> None:
        self.transports[which % len(self.transports)].deliver(count)

    @rule()
    def deliver_all(self) -> None:
        for transport in self.transports:
            transport.deliver_all()

    @precondition(lambda self: not self.pending)
    @rule(chunk=CHUNKS)
    def begin_snapshot(self, chunk: int) -> None:
        """An ordinary cut and, mixed with what comes next, every row held."""
        self.starts = [len(transport.frames) for transport in self.transports]
        self.cut(chunk, None, "acknowledged")
        self.pending = self.trainer.snapshot_shares(chunk)

    @precondition(lambda self: bool(self.pending))
    @rule(forgets=st.lists(st.booleans(), min_size=3, max_size=3))
    def end_snapshot(self, forgets: list[bool]) -> None:
        """The process may die between two shards' retention."""
        for number, transport in enumerate(self.transports):
            transport.publish(self.pending[number])
        for number, transport in enumerate(self.transports):
            if forgets[number]:
                transport.trim(self.starts[number])
        self.pending = []

    @rule(late=SHARDS, chunk=CHUNKS)
    def restart_trainer(self, late: int, chunk: int) -> None:
        """A new process publishes its header shard by shard. Meanwhile the old one makes a cut, which some shards have behind it."""
        self.pending = []
        self._replace(late, chunk)
        self._begin(self.trainer.next_generation())

    @rule(which=st.integers(0, 99), late=SHARDS, chunk=CHUNKS)
    def fork(self, which: int, late: int, chunk: int) -> None:
        """A new process goes on from an earlier state and computes something else."""
        self.pending = []
        places = [place for place in self.trainer.states if place <= self.trainer.previous]
        self._replace(late, chunk)
        self._begin(self.trainer.fork_at(places[which % len(places)]))
        self._publish(self.trainer.cut_shares(chunk=chunk, rewind=True))
        self.newest = self.trainer.previous

    @precondition(lambda self: self.zombie is not None)
    @rule(a=IDS, chunk=CHUNKS, which=SHARDS, whole=st.booleans())
    def publish_as_zombie(self, a: list[int], chunk: int, which: int, whole: bool) -> None:
        """Cuts and a snapshot cut, of all shards or of one, its header among them."""
        assert self.zombie is not None
        self.zombie.update({"a": a})
        shares = self.zombie.cut_shares(chunk=chunk)
        everything = self.zombie.snapshot_shares(chunk)
        for number, header in enumerate(self.zombie.headers()):
            if whole or number == which % len(shares):
                self.transports[number].publish([header, *shares[number], *everything[number]])

    @rule()
    def follow_far(self) -> None:
        self.far.apply_available()
        self._check(self.far)

    @invariant()
    def the_near_replica_follows(self) -> None:
        self.near.apply_available()
        self._check(self.near)
        if all(transport.seen == len(transport.frames) for transport in self.transports) and not self.near.lag.waiting:
            assert self.near.position == self.newest

    def teardown(self) -> None:
        if not hasattr(self, "trainer"):
            return
        for transport, share, everything in zip(
            self.transports, self.trainer.cut_shares(end=True), self.trainer.snapshot_shares(), strict=True
        ):
            transport.publish([*share, *everything])
            transport.deliver_all()
        late = Replica(self.transports)  # type: ignore[arg-type]
        try:
            for replica in (self.near, self.far, late):
                replica.apply_available()
                self._check(replica)
                assert_equal(replica, self.trainer, PROBES)
                assert replica.ended
                assert replica.counters.refusals == 0
        finally:
            for replica in (self.near, self.far, late):
                replica.close()

    def _replace(self, late: int, chunk: int) -> None:
        """The process that is there becomes one that was replaced, with a cut under way."""
        self.zombie = self.trainer.zombie()
        self.trainer.previous = (
            self.newest
        )  # who goes on finds it on all shards, whether the old process learned of it or not
        self.zombie.update({"a": [1, 2, 3]})
        self.under_way = self.zombie.cut_shares(chunk=chunk)
        self.late = late % len(self.transports)

    def _begin(self, _header: bytes) -> None:
        headers = self.trainer.headers()
        for number, transport in enumerate(self.transports):
            if number != self.late:
                transport.begin(headers[number])
        self._publish(self.under_way)
        self.transports[self.late].begin(headers[self.late])

    def _publish(self, shares: Shares) -> None:
        """With a frame of the snapshot in the making after each."""
        for number, share in enumerate(shares):
            for frame in share:
                self.transports[number].publish([frame])
                if self.pending and len(self.pending[number]) > 1:
                    self.transports[number].publish([self.pending[number].pop(0)])

    def _check(self, replica: Replica) -> None:
        with replica.view() as view:
            assert_shows(view, self.trainer, view.position, PROBES)
            before, step = self.shown.get(replica, (view.position, view.step))
            assert view.position >= before, "went back"
            assert view.step >= step or view.position.generation > before.generation, "went back without a fork"
            self.shown[replica] = (view.position, view.step)


TestShards: Any = ShardsMachine.TestCase
TestShards.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
