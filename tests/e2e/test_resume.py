"""A resumed run is the run that was never interrupted: rows, dense weights, replica; whatever ended the process before."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.flow import Marker, StageError
from pipeline.replica import Replica
from pipeline.session.resume import Resume
from pipeline.stream import find_tail
from pipeline.wire import FileTransport, HeaderFrame, decode_frame
from stages.errors import StreamAhead, StreamDiverged
from stages.stream import Stream
from stages.stream_resume import StreamResume
from tests.e2e.command import here
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, Job, assert_same_bits, run_job
from tests.e2e.patience import until
from tests.e2e.small import good_job

PACE_S = 0.01
EVERY = "checkpoint.every='7 steps'"


class Killed(Exception):
    """Stands for a process that ended between two steps, with no time to write anything."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return run_job(tmp_path_factory.mktemp("resume") / "whole", RAGGED)


def die_at(step: int) -> Callable[[int], None]:
    """Steps are slow, so that checkpoints and cuts are not far behind."""

    def die(ended: int) -> None:
        time.sleep(PACE_S)
        if ended == step:
            raise Killed

    return die


def published_step(directory: Path) -> int:
    transport = FileTransport(str(directory / "stream"))
    try:
        tail = find_tail(transport.newest_first())
        return 0 if tail is None else tail.commit.step
    finally:
        transport.close()


def die_behind_a_checkpoint(directory: Path, *overrides: str) -> int:
    """A run that had published more than its last checkpoint when it died; returns the last published step."""
    death = 26
    while True:
        with pytest.raises(StageError):
            run_job(directory, RAGGED, EVERY, "stages.stream.every='1 steps'", *overrides, on_step=die_at(death))
        if published_step(directory) > Resume.newest(directory).step + 1:
            return published_step(directory)
        shutil.rmtree(directory)
        death = death % 40 + 3


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_a_run_that_came_to_its_limit_goes_on_to_the_same_end(tmp_path: Path, whole: Job, steps: int) -> None:
    run_job(tmp_path / "run", RAGGED, f"run.steps={steps}")
    job = run_job(tmp_path / "run", RAGGED, resume=True)
    assert job.summary["resumed_from"] == steps
    assert job.summary["generation"] == 2
    assert_same_bits(whole, job)
    assert_replica_equals(job)


DISK = ("store.ssd.segment_bytes=8192", "store.ssd.extent_bytes=4096", "store.l1_rows=150")


@pytest.mark.parametrize(
    ("stream", "disk"),
    [("1 steps", DISK), ("3 steps", ()), ("11 steps", DISK), ("2ms", DISK)],
    ids=["1", "3", "11", "2ms"],
)
def test_a_run_that_died_again_and_again_is_the_run_that_never_did(
    tmp_path: Path, whole: Job, stream: str, disk: tuple[str, ...]
) -> None:
    """Deaths before the first checkpoint, right behind one, far behind one; cuts behind the checkpoint and before it."""
    rng, directory, last = random.Random(f"{stream}{disk}"), tmp_path / "run", 0
    job, began = None, []
    for attempt in range(30):
        death = last + rng.choice([1, 2, 5, 9, 16])
        try:
            job = run_job(
                directory,
                RAGGED,
                EVERY,
                f"stages.stream.every='{stream}'",
                *disk,
                on_step=die_at(death),
                resume=attempt > 0,
            )
            break
        except StageError:
            last = death
            began.append(Resume.newest(directory).step)
    assert job is not None
    assert began == sorted(began), "each begins from the newest checkpoint"
    assert len(set(began)) > 2
    assert_same_bits(whole, job)
    assert_replica_equals(job)


def test_a_replica_that_lives_through_it_never_goes_back(tmp_path: Path, whole: Job) -> None:
    directory, shown = tmp_path / "run", [0]
    last = die_behind_a_checkpoint(directory)
    replica = Replica(str(directory / "stream"))
    try:
        replica.apply_available()
        before = replica.step
        assert before == last

        def look(_step: int) -> None:
            replica.apply_available()
            shown.append(replica.step)

        job = run_job(directory, RAGGED, EVERY, "stages.stream.every='1 steps'", on_step=look, resume=True)
        assert job.summary["proof"] == f"the rows of step {last} are those that were published"
        assert shown[1] == before
        assert shown[1:] == sorted(shown[1:])
        assert_same_bits(whole, job)
    finally:
        replica.close()


def test_a_resumed_run_that_comes_to_other_rows_stops_before_it_publishes_them(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    die_behind_a_checkpoint(directory)
    frames = published(directory)
    changed = {**RAGGED, "dense_optimizer": {"use": "Adagrad", "lr": 0.051}}
    with pytest.raises(StageError) as caught:
        run_job(directory, changed, EVERY, "stages.stream.every='1 steps'", resume=True)
    assert isinstance(caught.value.__cause__, StreamDiverged)
    assert published(directory) == frames, "no row of the other run was published"


def test_no_checkpoint_behind_what_was_published_is_written_before_the_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From such a checkpoint nobody could prove any more that the stream shows other rows."""
    directory, prove, waits = tmp_path / "run", StreamResume.prove, threading.Event()
    last = die_behind_a_checkpoint(directory)
    mark = Stream.mark

    async def mark_and_tell(self: Stream, marker: Marker) -> None:
        if marker.attachments.get("step", 0) > last:
            waits.set()
        await mark(self, marker)

    def prove_late(self: StreamResume) -> None:
        """Room for a checkpoint that would not wait."""
        assert waits.wait(60)
        deadline = time.monotonic() + 1.0
        with contextlib.suppress(AssertionError):
            until(lambda: newest() > last, lambda: time.monotonic() < deadline)
        prove(self)

    def newest() -> int:
        return Resume.newest(directory).step

    monkeypatch.setattr(Stream, "mark", mark_and_tell)
    monkeypatch.setattr(StreamResume, "prove", prove_late)
    changed = {**RAGGED, "dense_optimizer": {"use": "Adagrad", "lr": 0.051}}
    with pytest.raises(StageError) as caught:
        run_job(directory, changed, "checkpoint.every='1 steps'", resume=True)
    assert isinstance(caught.value.__cause__, StreamDiverged)
    assert newest() <= last


@pytest.mark.parametrize("dense", [True, False])
def test_what_rides_in_cuts_may_change_with_a_resume(tmp_path: Path, dense: bool) -> None:
    """The proof asks for what the published cut carried, not for what the next ones will carry."""
    directory, before = tmp_path / "run", f"stages.stream.dense={not dense}"
    with pytest.raises(StageError):
        run_job(directory, RAGGED, EVERY, before, on_step=die_at(26))
    published = published_step(directory)
    job = run_job(directory, RAGGED, EVERY, f"stages.stream.dense={dense}", "stages.stream.codec=fp16", resume=True)
    assert job.summary["outcome"] == "end"
    if published >= job.summary["resumed_from"]:
        assert job.summary["proof"].startswith("the rows of step")
    else:
        assert job.summary["proof"].startswith("none: the checkpoint")


def published(directory: Path) -> int:
    transport = FileTransport(str(directory / "stream"))
    try:
        kinds = [decode_frame(data) for frames in transport.newest_first() for data in frames]
        return sum(not isinstance(frame, HeaderFrame) for frame in kinds)
    finally:
        transport.close()


def test_a_run_that_ends_before_what_was_published_says_so(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    last = die_behind_a_checkpoint(directory)
    with pytest.raises(StageError) as caught:
        run_job(directory, RAGGED, "stages.stream.every='1 steps'", f"run.steps={last - 1}", resume=True)
    assert isinstance(caught.value.__cause__, StreamAhead)


def test_a_run_that_died_before_it_was_one_starts_over_under_resume(tmp_path: Path) -> None:
    """With the same command as ever after. A directory that holds something else is no such run."""
    (tmp_path / "job").mkdir()
    config, run = good_job(tmp_path / "job"), tmp_path / "job" / "run"
    run.mkdir()
    (run / ".new-run.json").write_text('{"format": 1, "run')
    (run / "thesis.txt").write_text("mine")
    outcome = here("run", config, "--resume")
    assert outcome.code == 2
    assert "no run" in outcome.text
    (run / "thesis.txt").unlink()
    outcome = here("run", config, "--resume")
    assert outcome.code == 0
    assert "nothing to resume" in outcome.text
    assert json.loads((run / "summary.json").read_text())["generation"] == 1
    assert here("run", config, "--resume").code == 0
    assert json.loads((run / "summary.json").read_text())["generation"] == 2
