"""Rollback: a replica goes to any cut that the stream still holds, whole, and stays there until it is told to go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.replica import NotRetained, Replica
from pipeline.wire.frames import START, CommitFrame, CutPosition, DenseFrame, RowsFrame
from pipeline.wire.reading import FrameReader
from tests.replica.trainer import DictTrainer, MemoryTransport, assert_equal, assert_shows

DIMS = {"item": 4, "user": 3}
PROBES = range(-2, 70)


class Stage:
    """Cuts 1 .. 5 with a snapshot cut of 2 and 4, whose frames come between those of the next cut; then a fork at 3, and a cut."""

    def __init__(self) -> None:
        self.trainer = DictTrainer(DIMS, seed=4)
        self.trainer.carries = ("raw",)
        self.transport = MemoryTransport()
        self.transport.begin(self.trainer.header())
        self.begun: dict[int, int] = {}
        pending: list[bytes] = []
        for number in range(1, 6):
            frames = self.train()
            for frame in frames:
                self.transport.publish([frame, *pending[:2]])
                pending = pending[2:]
            self.transport.publish(pending)
            pending = []
            if number in (2, 4):
                self.begun[number], pending = len(self.transport.frames), self.trainer.snapshot()
        self.transport.begin(self.trainer.fork_at(CutPosition(1, 3)))
        self.transport.publish(self.trainer.cut(rewind=True))
        self.transport.publish(self.train())

    def train(self) -> list[bytes]:
        trainer = self.trainer
        trainer.dense = {"w": trainer.rng.normal(size=9)}
        trainer.update({"item": list(dict.fromkeys(trainer.rng.integers(0, 60, 20).tolist())), "user": [1, 2]})
        trainer.forget("item", trainer.rng.integers(0, 60, 5).tolist())
        return trainer.cut()

    @property
    def cuts(self) -> list[CutPosition]:
        return [position for position in self.trainer.states if position != START]


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize("target", ["memory", "rowlog"])
def test_every_retained_cut_is_reached_from_every_other_and_kept_until_it_goes_on(
    stage: Stage, tmp_path: Path, target: str
) -> None:
    path = None if target == "memory" else tmp_path / "replica"
    with Replica(stage.transport, path=path, target=target) as replica:  # type: ignore[arg-type]
        replica.apply_available()
        assert [cut.position for cut in replica.retained()] == stage.cuts
        assert [cut.step for cut in replica.retained()] == [stage.trainer.steps[position] for position in stage.cuts]
        rng = np.random.default_rng(2)
        for position in [*stage.cuts, *rng.permutation(np.array(stage.cuts)).tolist()]:
            with replica.view() as before:
                stood = before.position
                replica.rollback(position)
                assert replica.stays
                assert replica.apply_available() == 0
                assert_shows(before, stage.trainer, stood, PROBES)
            with replica.view() as view:
                assert_shows(view, stage.trainer, CutPosition(*position), PROBES)
            assert replica.durable_position == CutPosition(*position)
        replica.resume()
        replica.apply_available()
        assert_equal(replica, stage.trainer, PROBES)


def test_a_new_replica_goes_to_a_step(stage: Stage) -> None:
    with Replica(stage.transport) as replica:  # type: ignore[arg-type]
        replica.rollback(step=3)
        assert replica.position == CutPosition(2, 1), "the newest of that step: a fork went back to it"
        replica.rollback(step=2)
        with replica.view() as view:
            assert_shows(view, stage.trainer, CutPosition(1, 2), PROBES)


@pytest.mark.parametrize("number", [2, 4])
def test_what_retention_left_can_be_reached_and_no_more(stage: Stage, number: int) -> None:
    stage.transport.trim(stage.begun[number])
    with Replica(stage.transport) as replica:  # type: ignore[arg-type]
        left = [position for position in stage.cuts if position >= (1, number)]
        assert [cut.position for cut in replica.retained()] == left
        for position in left[::-1]:
            replica.rollback(position)
            with replica.view() as view:
                assert_shows(view, stage.trainer, position, PROBES)
        with pytest.raises(
            NotRetained, match=f"cut 1 of generation 1 cannot be reached.*from cut {number} of generation 1"
        ):
            replica.rollback(CutPosition(1, 1))
        assert replica.position == left[0]


def test_a_stream_of_which_no_snapshot_cut_is_left_says_so(stage: Stage) -> None:
    stage.transport.trim(stage.begun[4] + 3)
    with Replica(stage.transport) as replica:  # type: ignore[arg-type]
        with pytest.raises(NotRetained, match="no whole snapshot cut is left"):
            replica.rollback(step=100)
        assert replica.position == START


def test_cuts_behind_a_hole_can_be_reached_again_from_the_next_snapshot_cut_on(stage: Stage) -> None:
    holed = MemoryTransport()
    reader = FrameReader()
    for payload in stage.transport.frames:
        frame = reader.read(payload)
        gone = isinstance(frame, RowsFrame | DenseFrame | CommitFrame) and frame.position in ((1, 3), (1, 5))
        if not gone:
            holed.publish([payload])
    with Replica(holed) as replica:  # type: ignore[arg-type]
        assert [cut.position for cut in replica.retained()] == [(1, 1), (1, 2), (1, 4)]
        replica.rollback(step=100)
        with replica.view() as view:
            assert_shows(view, stage.trainer, CutPosition(1, 4), PROBES)
