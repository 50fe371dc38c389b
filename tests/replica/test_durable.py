"""A replica with a directory: rows and position survive it together, and a restart goes on from there (G5)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.files import LockedDirectory
from pipeline.replica import BadTarget, OtherRun, OtherTables, Replica, StepFell
from pipeline.rows.version import MAX_STEP
from pipeline.wire.frames import START, CutPosition
from tests.replica.trainer import DictTrainer, MemoryTransport, assert_equal

DIMS = {"item": 4, "user": 3}
PROBES = range(-2, 70)
TARGETS = ("memory", "rowlog")
MakeStage = Callable[..., "Stage"]


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[MakeStage]:
    """Makes stages, and closes their replicas."""
    made: list[Stage] = []

    def make(target: str, codec: str = "fp32") -> Stage:
        made.append(Stage(tmp_path / "replica", target, codec))
        return made[-1]

    yield make
    for stage in made:
        stage.replica.close()


class Stage:
    """A trainer, and a replica of its stream that keeps itself in a directory."""

    def __init__(self, path: Path, target: str, codec: str = "fp32") -> None:
        self.trainer = DictTrainer(DIMS, seed=3, codec=codec)
        self.trainer.carries = ("raw",)
        self.transport = MemoryTransport()
        self.transport.begin(self.trainer.header())
        self.path, self.target = path, target
        self.replica = self.start()

    def start(self) -> Replica:
        return Replica(self.transport, path=self.path, target=self.target, commit_every_s=0)  # type: ignore[arg-type]

    def train(self, *, publish: bool = True) -> None:
        trainer = self.trainer
        ids = trainer.rng.integers(0, 60, 20).tolist()
        trainer.dense = {"w": trainer.rng.normal(size=(3, 3)).astype(np.float32)}
        trainer.update({"item": list(dict.fromkeys(ids)), "user": list({i % 7 for i in ids})})
        trainer.forget("item", trainer.rng.integers(0, 60, 3).tolist())
        self.last = trainer.cut()
        if publish:
            self.transport.publish(self.last)

    def follow(self) -> None:
        self.replica.apply_available()
        assert_equal(self.replica, self.trainer, PROBES)

    def restart(self) -> None:
        position = self.replica.position
        self.replica.close()
        self.replica = self.start()
        assert self.replica.position == self.replica.durable_position == position


@pytest.mark.parametrize("codec", ["fp32", "fp16"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_restart_goes_on_behind_the_last_cut(stages: MakeStage, target: str, codec: str) -> None:
    stage = stages(target, codec)
    for _ in range(3):
        for _ in range(3):
            stage.train()
            stage.follow()
        stage.restart()
        assert_equal(stage.replica, stage.trainer, PROBES)
    before = len(stage.transport.frames)
    stage.train()
    stage.follow()
    assert stage.replica.counters.frames == len(stage.transport.frames) - before, "it read what it had read"


@pytest.mark.parametrize("target", TARGETS)
def test_forks_and_snapshots_that_bring_older_rows_survive_too(stages: MakeStage, target: str) -> None:
    """The log finds the newest record by its version: a row's own falls where a fork begins."""
    stage = stages(target)
    for _ in range(4):
        stage.train()
    stage.follow()
    stage.transport.begin(stage.trainer.fork_at(CutPosition(1, 2)))
    stage.transport.publish(stage.trainer.cut(rewind=True))
    stage.follow()
    stage.restart()
    assert_equal(stage.replica, stage.trainer, PROBES)
    stage.transport.begin(stage.trainer.fork_at(CutPosition(1, 1)))
    stage.trainer.cut(rewind=True)
    stage.train(publish=False)
    stage.transport.publish(stage.trainer.snapshot())
    stage.follow()
    stage.restart()
    assert_equal(stage.replica, stage.trainer, PROBES)
    stage.train()
    stage.follow()


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_trimmed_while_it_was_away_comes_with_a_snapshot_cut(stages: MakeStage, target: str) -> None:
    stage = stages(target)
    stage.train()
    stage.follow()
    stage.replica.close()
    for _ in range(3):
        stage.train()
    begun = len(stage.transport.frames)
    stage.transport.publish(stage.trainer.snapshot())
    stage.transport.trim(begun)
    stage.replica = stage.start()
    stage.follow()


@pytest.mark.parametrize("target", TARGETS)
def test_a_stream_of_another_life_is_read_from_its_beginning_and_nothing_is_applied_twice(
    stages: MakeStage, target: str
) -> None:
    stage = stages(target)
    for _ in range(2):
        stage.train()
    stage.follow()
    stage.replica.close()
    old, stage.transport = stage.transport, MemoryTransport()
    stage.transport.epoch = "another"
    stage.transport.begin(old.frames[0])
    stage.transport.publish(old.frames[1:])
    stage.replica = stage.start()
    stage.follow()
    assert stage.replica.counters.cuts == 0
    stage.train()
    stage.follow()
    assert stage.replica.counters.cuts == 1


def plain(replica: Replica) -> dict[str, tuple[list[int], bytes, list[int]]]:
    """Ids, weights and steps of all rows: generations are never compared."""
    found = {}
    with replica.view() as view:
        for name in view.tables:
            ids_n = view.ids(name)
            weights_nd, versions_n = view.lookup_versions(name, ids_n)
            found[name] = (ids_n.tolist(), weights_nd.tobytes(), (versions_n & MAX_STEP).tolist())
    return found


@pytest.mark.parametrize("first", ["cut", "snapshot"])
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_a_trainer_whose_stream_is_gone_and_that_begins_again_below_takes_nothing_back(
    stages: MakeStage, target: str, restarts: bool, first: str
) -> None:
    """A broker lost its data, and the trainer died before it could bring them back: it computes the same bits again. ``snapshot``: the
    broker lost them once more, and the replica was not there.
    """
    stage = stages(target)
    stage.train()
    again = copy.deepcopy(stage.trainer)
    for _ in range(3):
        stage.train()
    stage.follow()
    held, step = plain(stage.replica), stage.replica.step
    stage.replica.close()
    begin_again(stage, again, first, continues=1)
    stage.replica = stage.start()
    for number in range(1, 4):
        assert stage.replica.apply_available() == 1
        assert (plain(stage.replica), stage.replica.step) == (held, step)
        assert (stage.replica.position, stage.replica.lag.ahead) == (CutPosition(2, number), 4 - number)
        if restarts:
            stage.restart()
        stage.train()
    stage.transport.publish(again.snapshot())
    stage.replica.apply_available()
    assert (plain(stage.replica), stage.replica.step, stage.replica.lag.ahead) == (held, step, 0)
    stage.train()
    stage.replica.apply_available()
    with Replica(stage.transport) as fresh:  # type: ignore[arg-type]
        fresh.apply_available()
        assert (plain(stage.replica), stage.replica.step) == (plain(fresh), again.step)


def begin_again(stage: Stage, again: DictTrainer, first: str, *, continues: int | None) -> None:
    """The stream is another one, and ``again`` publishes all its rows there."""
    again.previous, again.continues = START, continues
    stage.transport, stage.trainer = MemoryTransport(), again
    stage.transport.epoch = "another"
    stage.transport.begin(again.next_generation())
    again.changed = {name: set(rows) for name, rows in again.model.items()}
    drawn = again.rng.bit_generator.state  # to part frames draws a number, and steps are to draw what they drew
    cut = again.cut()
    stage.transport.publish(cut if first == "cut" else again.snapshot())
    again.rng.bit_generator.state = drawn


def test_a_run_that_ends_below_what_a_replica_holds_has_not_ended_for_it(stages: MakeStage) -> None:
    stage = stages("memory")
    stage.train()
    again = copy.deepcopy(stage.trainer)
    stage.train()
    stage.follow()
    held = plain(stage.replica)
    stage.replica.close()
    begin_again(stage, again, "cut", continues=1)
    stage.transport.publish(again.cut(end=True))
    stage.replica = stage.start()
    stage.replica.apply_available()
    assert (stage.replica.ended, stage.replica.lag.ahead, plain(stage.replica)) == (False, 1, held)


@pytest.mark.parametrize("continues", [None, 2])
def test_a_trainer_that_begins_again_below_and_may_compute_something_else_is_refused(
    stages: MakeStage, continues: int | None
) -> None:
    stage = stages("memory")
    stage.train()
    again = copy.deepcopy(stage.trainer)
    stage.train()
    stage.follow()
    stage.replica.close()
    begin_again(stage, again, "cut", continues=continues)
    stage.replica = stage.start()
    with pytest.raises(StepFell):
        stage.replica.apply_available()


@pytest.mark.parametrize("target", TARGETS)
def test_another_run_is_refused_across_restarts_too(stages: MakeStage, target: str) -> None:
    stage = stages(target)
    stage.train()
    stage.follow()
    stage.replica.close()
    other = DictTrainer(DIMS, run_id="other")
    stage.transport = MemoryTransport()
    stage.transport.epoch = "another"
    stage.transport.begin(other.header())
    stage.replica = stage.start()
    with pytest.raises(OtherRun, match=r"run other.*this replica follows run run"):
        stage.replica.apply_available()
    assert stage.replica.position == CutPosition(1, 1)


def test_two_replicas_do_not_share_a_directory(stages: MakeStage) -> None:
    stage = stages("memory")
    with pytest.raises(LockedDirectory):
        stage.start()


def test_other_tables_than_a_directory_holds_are_refused(stages: MakeStage) -> None:
    stage = stages("memory")
    stage.train()
    stage.follow()
    stage.replica.close()
    with pytest.raises(OtherTables, match="holds all tables, asked for are tables item"):
        Replica(stage.transport, path=stage.path, tables=["item"])  # type: ignore[arg-type]


def test_a_target_on_disk_needs_a_directory() -> None:
    with pytest.raises(BadTarget, match="--dir DIR"):
        Replica(MemoryTransport(), target="rowlog")  # type: ignore[arg-type]


@pytest.mark.parametrize("target", TARGETS)
def test_killed_behind_a_snapshot_cut_it_reads_again_what_came_before_its_commit_frame(
    stages: MakeStage, target: str
) -> None:
    """Frames of the next cut lie between those of the snapshot cut: going on behind its commit frame would miss them."""
    stage = stages(target)
    stage.replica.close()
    stage.train()
    begun, pending = len(stage.transport.frames), stage.trainer.snapshot()
    stage.train(publish=False)
    following = stage.last
    stage.transport.publish([pending[0], following[0], *pending[1:], *following[1:]])
    stage.transport.trim(begun)
    stage.transport.batch = 1
    stage.replica = stage.start()
    while stage.replica.position != CutPosition(1, 1):
        assert stage.replica.advance(0) is not None
    stage.replica._held.close()  # as a kill: nothing more is committed
    stage.replica = stage.start()
    assert stage.replica.position == CutPosition(1, 1)
    stage.follow()
