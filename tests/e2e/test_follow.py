"""A followed log: while its source waits for files, cuts and checkpoints are served, and no batch is cut short."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import yaml

from pipeline.files import RealFiles
from pipeline.replica import Replica
from pipeline.rowlog import CheckpointReader, NoCheckpoint
from tests.e2e.command import here
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import Job, run_job
from tests.e2e.patience import until
from tests.e2e.small import config_file, lines, text


def followed(tmp_path: Path, *overrides: str, then: Callable[[Replica], None]) -> Job:
    """Run a job on a log of which one file with ten and a half batches is there. ``then`` runs beside it and adds more."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "01.csv").write_text(text(lines(168)))
    config = yaml.safe_load(config_file(tmp_path, logs / "*.csv", follow=True, poll_s=0.01).read_text())
    replica, failed = Replica(str(tmp_path / "run")), list[BaseException]()

    def beside() -> None:
        try:
            then(replica)
        except BaseException as error:
            failed.append(error)
        finally:
            add(tmp_path, "99.csv", 1000)

    helper = threading.Thread(target=beside)
    helper.start()
    try:
        job = run_job(tmp_path / "run", config, "run.steps=21", *overrides)
    finally:
        helper.join()
        replica.close()
    if failed:
        raise failed[0]
    return job


def add(tmp_path: Path, name: str, count: int) -> None:
    """A file is complete when its name appears."""
    part = tmp_path / name
    part.write_text(text(lines(count, seed=5)))
    part.rename(tmp_path / "logs" / name)


def caught_up_with(replica: Replica, step: int) -> Callable[[], bool]:
    def look() -> bool:
        replica.apply_available()
        return replica.step == step

    return look


def newest_step(run: Path) -> int:
    """Of the newest checkpoint that ``run`` finished; 0: there is none yet."""
    try:
        return CheckpointReader.newest(RealFiles(), str(run / "checkpoints")).manifest.step
    except NoCheckpoint:
        return 0


def test_timed_cuts_are_served_while_the_source_is_idle(tmp_path: Path) -> None:
    """The last step before the wait reaches a replica though nothing comes behind it."""

    def then(replica: Replica) -> None:
        until(caught_up_with(replica, 10))
        add(tmp_path, "02.csv", 40)
        until(caught_up_with(replica, 13))

    overrides = ("stages.stream.every='20ms'", "replica.embedded=true", "checkpoint.every='20ms'")
    job = followed(tmp_path, *overrides, then=then)
    assert job.summary["steps"] == 21
    assert job.summary["samples"] == 21 * 16
    assert job.summary["freshness_ms"]["steps"] == 21
    assert_replica_equals(job)


def test_timed_checkpoints_are_written_while_the_source_is_idle(tmp_path: Path) -> None:
    def then(_replica: Replica) -> None:
        until(lambda: newest_step(tmp_path / "run") == 10)

    job = followed(tmp_path, "checkpoint.every='20ms'", "checkpoint.keep=100", then=then)
    assert job.summary["steps"] == 21


def test_a_file_that_comes_too_late_is_refused_by_name(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "05.csv").write_text(text(lines(160)))
    job, run = config_file(tmp_path, logs / "*.csv", follow=True, poll_s=0.01), tmp_path / "run"

    def late() -> None:
        with Replica(str(run)) as replica:
            until(caught_up_with(replica, 10))
        add(tmp_path, "04.csv", 16)

    helper = threading.Thread(target=late)
    helper.start()
    outcome = here("run", job, "stages.stream.every='10ms'", "run.progress_s=0.05")
    helper.join()
    assert outcome.code == 1, outcome.text
    assert "04.csv" in outcome.text
    assert "05.csv" in outcome.text
    assert "Traceback" not in outcome.text
    assert json.loads((run / "run.json").read_text())["run_id"]
