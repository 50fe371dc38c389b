"""The promises of a replica in one walk, and that the walk notices each sabotage."""

from __future__ import annotations

import contextlib

import pytest

from pipeline.replica import DamagedCut, Replica, ReplicaError, StepFell
from pipeline.wire.frames import CutPosition
from tests.replica.trainer import DictTrainer, MemoryTransport, assert_equal, assert_shows
from tests.sabotage.replica import SABOTAGES

PROBES = range(40)


class Walk:
    """A trainer whose stream a replica follows, checked after each event."""

    def __init__(self) -> None:
        self.trainer = DictTrainer({"item": 4, "user": 3})
        self.transport = MemoryTransport()
        self.transport.begin(self.trainer.header())
        self.replica = Replica(self.transport)  # type: ignore[arg-type]
        self.cuts: list[list[bytes]] = []

    def train(self, shift: int, *, publish: bool = True) -> None:
        self.trainer.update({"item": list(range(shift, shift + 20)), "user": [1, 2, shift]})
        self.trainer.forget("item", [shift + 1])
        self.cuts.append(self.trainer.cut())
        if publish:
            self.check(self.cuts[-1])

    def check(self, frames: list[bytes]) -> None:
        with self.replica.view() as before:
            position = before.position
            self.transport.publish(frames)
            self.replica.apply_available()
            assert_shows(before, self.trainer, position, PROBES)
        with self.replica.view() as view:
            assert_shows(view, self.trainer, view.position, PROBES)

    def run(self) -> None:
        for shift in range(3):
            self.train(shift)
            assert_equal(self.replica, self.trainer, PROBES)
        self.check(self.cuts[0])
        assert self.replica.position == CutPosition(1, 3)
        self.train(4, publish=False)
        self.trainer.forget("item", [9, 10])
        self.train(5)
        assert self.replica.position == CutPosition(1, 3)
        self.check(self.trainer.snapshot())
        assert_equal(self.replica, self.trainer, PROBES)
        self.fork()
        self.refuse_to_go_back()
        self.refuse()

    def fork(self) -> None:
        self.transport.begin(self.trainer.fork_at(CutPosition(1, 2)))
        self.check(self.trainer.cut(rewind=True))
        assert self.replica.step == self.trainer.step
        assert_equal(self.replica, self.trainer, PROBES)

    def refuse_to_go_back(self) -> None:
        """A cut of an earlier step, in another stream that has the same cuts."""
        transport, trainer = MemoryTransport(), DictTrainer({"item": 4, "user": 3})
        transport.begin(trainer.header())
        trainer.update({"item": [1]})
        transport.publish(trainer.cut())
        trainer.step -= 1
        transport.publish(trainer.cut())
        replica = Replica(transport)  # type: ignore[arg-type]
        with pytest.raises(StepFell):
            replica.apply_available()
        assert replica.position == CutPosition(1, 1)

    def refuse(self) -> None:
        """Rows of one cut under the commit frame of another."""
        stood = self.trainer.previous
        self.train(6, publish=False)
        other = DictTrainer({"item": 4, "user": 3}, seed=9, generation=stood.generation)
        other.step, other.number, other.previous = self.trainer.step, self.trainer.number - 1, stood
        other.model = {name: dict(rows) for name, rows in self.trainer.model.items()}
        other.changed = {"item": {6}, "user": {6}}
        other.update({"item": list(range(6, 26)), "user": [1, 2, 6]})
        other.forget("item", [7])
        self.transport.publish([*other.cut()[:-1], self.cuts[-1][-1]])
        with pytest.raises(DamagedCut):
            self.replica.apply_available()
        with self.replica.view() as view:
            assert_shows(view, self.trainer, stood, PROBES)


def test_the_walk_passes() -> None:
    Walk().run()


@pytest.mark.parametrize("name", SABOTAGES)
def test_each_sabotage_is_noticed(name: str) -> None:
    with SABOTAGES[name](), pytest.raises((AssertionError, ReplicaError, pytest.fail.Exception)):
        Walk().run()


def test_a_sabotage_is_over_when_its_block_ends() -> None:
    for sabotage in SABOTAGES.values():
        with sabotage(), contextlib.suppress(AssertionError, ReplicaError, pytest.fail.Exception):
            Walk().run()
    Walk().run()
