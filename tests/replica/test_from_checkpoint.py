"""A replica that begins with a checkpoint of the trainer: whichever, it comes to the same rows as one that read the whole stream."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.replica import CheckpointOfOther, NoCutForCheckpoint, Replica
from pipeline.rowlog import NoCheckpoint
from pipeline.wire.errors import StreamAbsent
from pipeline.wire.frames import START, CutPosition
from tests.replica.checkpoints import write_checkpoint
from tests.replica.trainer import DictTrainer, MemoryTransport, Model, assert_equal, digest_of

DIMS = {"item": 4, "user": 3}
PROBES = range(-2, 45)


@dataclass
class Written:
    path: str
    step: int
    generation: int
    model: Model


class Run:
    """A trainer whose steps, cuts, restarts and forks come in a random order; it writes checkpoints between them."""

    def __init__(self, directory: Path, seed: int = 0, codec: str = "fp16") -> None:
        self.rng = np.random.default_rng(seed)
        self.trainer = DictTrainer(DIMS, codec=codec, seed=seed)
        self.trainer.carries = ("slow", "raw")
        self.trainer.dense = {"w": np.zeros(9)}
        self.transport = MemoryTransport()
        self.transport.begin(self.trainer.header())
        self.directory, self.written = directory, list[Written]()
        self.snapshots: list[int] = []
        """Where they begin."""

    def step(self) -> None:
        trainer, rng = self.trainer, self.rng
        trainer.dense = {"w": rng.normal(size=9)}
        trainer.update({"item": list(dict.fromkeys(rng.integers(0, 40, 8).tolist())), "user": [int(rng.integers(6))]})
        trainer.forget("item", rng.integers(0, 40, 2).tolist())

    def cut(self) -> None:
        self.transport.publish(self.trainer.cut())

    def checkpoint(self) -> None:
        trainer = self.trainer
        path = write_checkpoint(trainer, str(self.directory / f"{len(self.written)}"))
        self.written.append(Written(path, trainer.step, trainer.generation, copy.deepcopy(trainer.model)))

    def snapshot(self) -> None:
        self.snapshots.append(len(self.transport.frames))
        self.transport.publish(self.trainer.snapshot())

    def restart(self) -> None:
        self.transport.begin(self.trainer.next_generation())

    def fork(self) -> None:
        places = [position for position in self.trainer.states if position != START][-3:]
        self.transport.begin(self.trainer.fork_at(places[int(self.rng.integers(len(places)))]))
        self.transport.publish(self.trainer.cut(rewind=True))

    def start(self, written: Written, **options: object) -> Replica:
        return Replica(self.transport, checkpoint=written.path, **options)  # type: ignore[arg-type]


def start_or_refuse(run: Run, written: Written) -> Replica | None:
    """None where a fork took rows back that the checkpoint has, and the error says so."""
    try:
        return run.start(written)
    except NoCutForCheckpoint as error:
        if "with a fork" not in str(error):
            raise
        return None


@pytest.mark.parametrize("seed", range(5))
def test_from_any_checkpoint_it_comes_to_the_trainer_or_says_why_not(tmp_path: Path, seed: int) -> None:
    run, refused = Run(tmp_path, seed), 0
    for _ in range(8):
        for _ in range(int(run.rng.integers(1, 4))):
            run.step()
            if run.rng.random() < 0.4:
                run.checkpoint()
        if run.rng.random() < 0.8:
            run.cut()
            if run.rng.random() < 0.2:
                run.restart()
            if run.rng.random() < 0.25:
                run.fork()
    run.step()
    run.cut()
    assert run.written
    for written in run.written:
        replica = start_or_refuse(run, written)
        if replica is None:
            refused += 1
            continue
        with replica:
            assert replica.step == written.step
            with replica.view() as view:
                assert view.digest() == digest_of(written.model), (
                    "not the checkpoint's rows as the stream would send them"
                )
            replica.apply_available()
            assert_equal(replica, run.trainer, PROBES)
            assert replica.counters.snapshot_cuts == 0
    assert refused < len(run.written)


def test_rows_of_a_checkpoint_that_a_fork_does_not_take_back_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step()
    run.cut()
    run.step()
    run.checkpoint()
    run.transport.begin(run.trainer.fork_at(CutPosition(1, 1)))
    run.transport.publish(run.trainer.cut(rewind=True))
    with pytest.raises(NoCutForCheckpoint, match=r"went back to step 1 with a fork.*take a checkpoint of the fork"):
        run.start(run.written[0])


def test_a_stream_that_was_trimmed_behind_a_checkpoint_says_what_would_do(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for _ in range(3):
        run.step()
        run.checkpoint()
        run.cut()
    run.snapshot()
    run.step()
    run.cut()
    run.transport.trim(run.snapshots[0])
    with pytest.raises(
        NoCutForCheckpoint, match=r"no cut before step 3 any more; take a newer checkpoint, or start without"
    ):
        run.start(run.written[1])
    with run.start(run.written[2]) as replica:
        replica.apply_available()
        assert_equal(replica, run.trainer, PROBES)


def test_a_checkpoint_of_another_run_or_of_other_tables_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step()
    run.checkpoint()
    for other, told in (
        (DictTrainer(DIMS, run_id="other"), "of run run, the stream of run other"),
        (DictTrainer({"item": 8}), "'item' is"),
    ):
        transport = MemoryTransport()
        transport.begin(other.header())
        other.update({"item": [1]})
        transport.publish(other.cut())
        with pytest.raises(CheckpointOfOther, match=told):
            Replica(transport, checkpoint=run.written[0].path)  # type: ignore[arg-type]


def test_where_there_is_no_checkpoint_or_no_stream_it_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step()
    run.checkpoint()
    with pytest.raises(NoCheckpoint):
        Replica(run.transport, checkpoint=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(StreamAbsent):
        Replica(str(tmp_path / "nothing"), checkpoint=run.written[0].path)
    run.transport.frames.clear()
    with pytest.raises(NoCutForCheckpoint, match="no header frame yet"):
        run.start(run.written[0])


def test_a_durable_replica_begins_with_a_checkpoint_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step()
    run.checkpoint()
    run.cut()
    run.step()
    with run.start(run.written[0], path=tmp_path / "replica", target="rowlog") as replica:
        assert replica.durable_position == CutPosition(1, 1)
    run.cut()
    with run.start(run.written[0], path=tmp_path / "replica") as replica:
        assert replica.position == CutPosition(1, 1)
        replica.apply_available()
        assert replica.counters.cuts == 1
        assert_equal(replica, run.trainer, PROBES)
    run.checkpoint()
    with run.start(run.written[1], path=tmp_path / "replica") as replica:
        assert replica.counters.rows_forgotten == 0, "what is durable is not thrown away for a checkpoint"
        assert_equal(replica, run.trainer, PROBES)


def test_a_checkpoint_before_the_first_cut_counts_where_the_stream_is_whole(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step()
    run.checkpoint()
    run.step()
    run.cut()
    with run.start(run.written[0]) as replica:
        assert (replica.position, replica.step) == (START, 1)
        replica.apply_available()
        assert_equal(replica, run.trainer, PROBES)


def test_a_checkpoint_of_a_runs_end_knows_that_it_ended(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step()
    run.checkpoint()
    run.step()
    run.transport.publish(run.trainer.cut(end=True))
    run.checkpoint()
    with run.start(run.written[1]) as replica:
        assert replica.ended
    with run.start(run.written[0]) as replica:
        assert not replica.ended
        replica.apply_available()
        assert replica.ended
