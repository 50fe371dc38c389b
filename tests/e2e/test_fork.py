"""A resume that changes the arithmetic is a fork: replicas go back to its checkpoint with it, whole, and follow it to the end."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.flow import StageError
from pipeline.replica import Replica
from pipeline.session.follower import Follower
from pipeline.session.inspect_rows import newest_checkpoint
from pipeline.session.resume import Resume
from pipeline.stream import RowStreamer
from pipeline.stream.outlet import Outlet
from pipeline.wire import CommitFrame, CutPosition, FileTransport, decode_frame
from stages.errors import StreamDiverged
from tests.e2e.followed import assert_replica_equals
from tests.e2e.held import Rows, checkpointed, held_by, trained
from tests.e2e.jobs import RAGGED, Job, assert_same_bits, run_job
from tests.e2e.test_resume import DISK, EVERY, Killed, die_at, die_behind_a_checkpoint, published_step

OTHER: dict[str, Any] = copy.deepcopy(RAGGED)
"""RAGGED with another learning rate, and other ids: some rows that were published will never be trained again."""
OTHER["dense_optimizer"]["lr"] = 0.04
OTHER["stages"]["source"]["seed"] = 9
ACCEPT = ("dense_optimizer.lr", "stages.source.seed")
CUTS = "stages.stream.every='1 steps'"


def follow_a_fork(directory: Path, *overrides: str) -> Job:
    """Fork the dead run in ``directory``. A replica beside it is the checkpoint when the fork begins; it, one that looks late and one that
    begins late are the fork when that has ended.
    """
    base, dead = checkpointed(directory), published_step(directory)
    step = newest_checkpoint(directory).manifest.step
    lived, behind = (Replica(str(directory / "stream")) for _ in range(2))
    lived.apply_available()
    before = held_by(lived)
    assert lived.step == dead
    seen: list[tuple[int, Rows]] = []

    def look(_ended: int) -> None:
        lived.apply_available()
        if not seen:
            seen.append((lived.step, held_by(lived)))

    job = run_job(directory, OTHER, EVERY, *overrides, on_step=look, resume=True, accept=ACCEPT)
    assert seen == [(step, base)], "the replica was not the checkpoint when the fork began"
    assert job.summary["rewind"]["step"] == step
    ours = trained(job)
    gone = [(name, i) for name, rows in before.items() for i in rows if i not in ours[name]]
    assert gone, "no row was the dead process's alone, so this shows nothing"
    for replica in (lived, behind):
        replica.apply_available()
        assert held_by(replica) == ours
        assert replica.step == job.summary["last_step"]
        replica.close()
    assert_replica_equals(job)
    return job


TRIMMED = ("stages.stream.snapshot_every='5 steps'", "stages.stream.segment_bytes=4096")


def first_retained_step(directory: Path) -> int:
    """Of the oldest ordinary cut that the stream still holds: where it is above a checkpoint's, a snapshot cut tells what was published
    since.
    """
    transport = FileTransport(str(directory / "stream"))
    try:
        frames = [decode_frame(data) for part in transport.newest_first() for data in part]
        return min(one.step for one in frames if isinstance(one, CommitFrame) and not one.snapshot)
    finally:
        transport.close()


@pytest.mark.parametrize("with_disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("stream", [(), TRIMMED], ids=["whole stream", "trimmed stream"])
def test_replicas_go_back_with_a_fork_and_follow_it(tmp_path: Path, stream: Sequence[str], with_disk: bool) -> None:
    directory, disk = tmp_path / "run", DISK if with_disk else ()
    die_behind_a_checkpoint(directory, *stream, *disk)
    while stream and first_retained_step(directory) <= Resume.newest(directory).step:
        shutil.rmtree(directory)
        die_behind_a_checkpoint(directory, *stream, *disk)
    shutil.copytree(directory, tmp_path / "silent", ignore=shutil.ignore_patterns("stream", "*lock"))
    step = Resume.newest(directory).step
    job = follow_a_fork(directory, CUTS, *stream, *disk)
    assert job.summary["resumed_from"] == step
    silent = run_job(tmp_path / "silent", OTHER, *disk, "stages.stream.enabled=false", resume=True, accept=ACCEPT)
    assert_same_bits(silent, job)


def test_a_run_that_died_before_its_first_checkpoint_forks_from_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with pytest.raises(StageError):
        run_job(directory, RAGGED, CUTS, on_step=die_at(12))
    replica = Replica(str(directory / "stream"))
    replica.apply_available()
    assert replica.num_rows > 0
    seen: list[tuple[int, int]] = []

    def look(_ended: int) -> None:
        replica.apply_available()
        seen.append((replica.step, replica.num_rows))

    job = run_job(directory, OTHER, "stages.stream.every='20 steps'", on_step=look, resume=True, accept=ACCEPT)
    assert seen[0] == (0, 0), "the replica held rows of a run that had not begun"
    assert job.summary["rewind"] | {"withdrawn": 0} == {"step": 0, "rows": 0, "withdrawn": 0}
    assert_same_bits(run_job(tmp_path / "clean", OTHER), job)
    replica.apply_available()
    assert held_by(replica) == trained(job)
    replica.close()
    assert_replica_equals(job)


def test_a_run_that_ended_is_forked_with_nothing_to_take_back(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    run_job(directory, RAGGED, "run.steps=20")
    replica = Replica(str(directory / "stream"))
    replica.apply_available()
    assert replica.ended
    job = run_job(directory, OTHER, resume=True, accept=ACCEPT)
    assert job.summary["rewind"] == {"step": 20, "rows": 0, "withdrawn": 0}
    replica.apply_available()
    assert held_by(replica) == trained(job)
    replica.close()


def die_with_the_commit_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """All frames of the rewind are published, but not its commit frame."""
    send = Outlet.send

    def send_or_die(self: Outlet, frames: Sequence[Any], *, sync: bool) -> int:
        if any(isinstance(frame, CommitFrame) and frame.rewind for frame in frames):
            send(self, frames[:-1], sync=True)
            raise Killed
        return send(self, frames, sync=sync)

    monkeypatch.setattr(Outlet, "send", send_or_die)


def die_before_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_self: RowStreamer) -> None:
        raise Killed

    monkeypatch.setattr(RowStreamer, "open", die)


@pytest.mark.parametrize("die", [die_with_the_commit_frame, die_before_the_header])
def test_a_fork_that_died_before_it_was_seen_is_seen_when_it_is_resumed(
    tmp_path: Path, die: Callable[[pytest.MonkeyPatch], None]
) -> None:
    directory = tmp_path / "run"
    die_behind_a_checkpoint(directory)
    base, replica = checkpointed(directory), Replica(str(directory / "stream"))
    replica.apply_available()
    with pytest.MonkeyPatch.context() as patch:
        die(patch)
        with pytest.raises(StageError) as caught:
            run_job(directory, OTHER, EVERY, CUTS, "stages.stream.chunk_rows=8", resume=True, accept=ACCEPT)
    assert isinstance(caught.value.__cause__, Killed)
    assert replica.apply_available() == 0, "half a rewind was applied"
    seen: list[Rows] = []

    def look(_ended: int) -> None:
        replica.apply_available()
        seen.append(held_by(replica))

    job = run_job(directory, OTHER, EVERY, CUTS, on_step=look, resume=True)
    assert seen[0] == base
    replica.apply_available()
    assert held_by(replica) == trained(job)
    replica.close()
    assert_replica_equals(job)


def test_a_fork_that_died_behind_its_rewind_is_resumed_and_proven_by_it(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    die_behind_a_checkpoint(directory)
    step = Resume.newest(directory).step
    late = ("stages.stream.every='30 steps'", EVERY)
    with pytest.raises(StageError):
        run_job(directory, OTHER, *late, on_step=die_at(step + 2), resume=True, accept=ACCEPT)
    assert published_step(directory) == step
    job = run_job(directory, OTHER, *late, resume=True)
    assert job.summary["proof"] == f"the rows of step {step} are those that were published"
    assert "rewind" not in job.summary
    assert_replica_equals(job)


def test_a_fork_whose_stream_was_off_is_seen_when_it_is_on_again(tmp_path: Path) -> None:
    """Checkpoints went on meanwhile: what stream and run have in common ends where the fork began."""
    directory = tmp_path / "run"
    die_behind_a_checkpoint(directory)
    replica = Replica(str(directory / "stream"))
    replica.apply_available()
    off = run_job(directory, OTHER, EVERY, "stages.stream.enabled=false", "run.steps=35", resume=True, accept=ACCEPT)
    assert off.summary["cuts"] == 0
    base, seen = checkpointed(directory), list[Rows]()

    def look(_ended: int) -> None:
        replica.apply_available()
        seen.append(held_by(replica))

    job = run_job(directory, OTHER, CUTS, on_step=look, resume=True)
    assert job.summary["rewind"]["step"] == 35
    assert seen[0] == base
    replica.apply_available()
    assert held_by(replica) == trained(job)
    assert replica.position > CutPosition(3, 1)
    replica.close()
    assert_replica_equals(job)


def test_a_run_that_diverged_goes_on_as_a_fork_when_that_is_accepted(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    die_behind_a_checkpoint(directory)
    with pytest.raises(StageError, match="--resume --accept proof") as caught:
        run_job(directory, OTHER, EVERY, CUTS, resume=True)
    assert isinstance(caught.value.__cause__, StreamDiverged)
    replica = Replica(str(directory / "stream"))
    replica.apply_available()
    job = run_job(directory, OTHER, EVERY, CUTS, resume=True, accept=["proof"])
    assert "proof" not in job.summary
    replica.apply_available()
    assert held_by(replica) == trained(job)
    replica.close()
    described = json.loads((directory / "run.json").read_text())
    assert list(described["fork"]["accepted"]) == ["proof"]


def test_the_embedded_replica_goes_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, ends = tmp_path / "run", list[Rows]()
    die_behind_a_checkpoint(directory)
    finish = Follower.finish

    def finish_and_look(self: Follower) -> dict[str, Any]:
        figures = finish(self)
        assert self.replica is not None
        ends.append(held_by(self.replica))
        return figures

    monkeypatch.setattr(Follower, "finish", finish_and_look)
    job = run_job(directory, OTHER, CUTS, "replica.embedded=true", resume=True, accept=ACCEPT)
    assert ends == [trained(job)]
    assert job.summary["freshness_ms"]["steps"] > 0


def test_history_tells_what_was_accepted_and_where_it_forked(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    run_job(directory, RAGGED, "run.steps=10")
    run_job(directory, OTHER, "run.steps=20", resume=True, accept=["dense_optimizer", "stages.source.seed"])
    run_job(directory, OTHER, "run.steps=30", resume=True)
    described = json.loads((directory / "run.json").read_text())
    first, second = described["history"]
    assert "fork" not in first
    assert second["fork"] == {
        "step": 10,
        "accepted": {
            "dense_optimizer.lr": {"was": 0.05, "is": 0.04},
            "stages.source.seed": {"was": "(not set)", "is": 9},
        },
    }
    assert (second["generation"], second["resumed_from"]) == (2, 10)
    assert "fork" not in described
    assert (described["generation"], described["resumed_from"]) == (3, 20)
    assert np.isclose(second["config"]["dense_optimizer"]["lr"], 0.04)
