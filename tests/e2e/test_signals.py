"""Signals to a run, most in a process of its own, and what others may do with a run that goes on."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from pipeline.replica import Replica
from tests.e2e.command import Outcome, finish, here, start
from tests.e2e.jobs import RAGGED
from tests.e2e.patience import until
from tests.e2e.small import config_file, lines, text


@contextmanager
def running(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = start("run", *arguments)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def followed_log(directory: Path) -> Path:
    """A job of ten batches, whose source then waits for more files."""
    logs = directory / "logs"
    logs.mkdir()
    (logs / "1.csv").write_text(text(lines(160)))
    return config_file(directory, logs / "*.csv", follow=True, poll_s=0.02)


def is_alive(process: subprocess.Popen[str]) -> bool:
    return process.poll() is None


def replica_step(replica: Replica) -> int:
    replica.apply_available()
    return replica.step


def assert_ended_cleanly(outcome: Outcome, run: Path, tmp_path: Path) -> None:
    """130, a summary, and a checkpoint that a replica equals."""
    assert outcome.code == 130, outcome.text
    assert "Traceback" not in outcome.text
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["outcome"], summary["lost"]) == ("interrupt", 0)
    for table in summary["tables"]:
        ours, theirs = tmp_path / "ours.npz", tmp_path / "theirs.npz"
        assert here("export", run, "--table", table, "--out", ours).code == 0
        assert here("replica", run, "--table", table, "--export", theirs).code == 0
        with np.load(ours) as one, np.load(theirs) as other:
            assert one["ids"].size
            assert np.array_equal(one["ids"], other["ids"])
            assert one["weights"].tobytes() == other["weights"].tobytes()
            assert np.array_equal(one["version"][:, 1], other["version"][:, 1])


def test_a_run_whose_source_waits_is_live_and_ends_cleanly_when_told(tmp_path: Path) -> None:
    job, run = followed_log(tmp_path), tmp_path / "run"
    with running(job, "stages.stream.every=10ms") as process, Replica(str(run)) as replica:
        until(lambda: replica_step(replica) == 10, partial(is_alive, process))
        asked: list[str | Path] = ["rows", run, "--table", "user", "--ids", *map(str, range(-2, 40)), "--json"]
        live = here(*asked)
        assert live.code == 0, live.text
        assert here("rows", run, "--table", "nobody", "--ids", "1").code == 2
        second = here("run", job, "--overwrite")
        assert second.code != 0
        assert str(run) in second.text
        assert str(process.pid) in second.text
        outcome = finish(process, signal.SIGTERM)
    assert_ended_cleanly(outcome, run, tmp_path)
    assert json.loads((run / "summary.json").read_text())["steps"] == 10
    rows = json.loads(live.out)["rows"]
    assert {row["updated"] for row in rows} == {True, False}
    assert json.loads(here(*asked).out) == json.loads(live.out), "the source waited: no step came after"


def test_interrupt_drains_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    """To this process, once the run shows in a replica: it takes signals from then to its end."""
    run = tmp_path / "run"
    with ThreadPoolExecutor(1) as other, Replica(str(run)) as replica:

        def interrupt() -> None:
            until(lambda: replica_step(replica) > 3)
            os.kill(os.getpid(), signal.SIGINT)

        interrupting = other.submit(interrupt)
        outcome = here("run", "quickstart", f"run.dir={run}", "stages.source.epochs=100000")
        interrupting.result()
    assert_ended_cleanly(outcome, run, tmp_path)


def stuck_job(directory: Path) -> tuple[Path, Path, Path]:
    """A job whose second stage never ends. Returns also the files by which it tells that it is stuck, and that it is stopping."""
    directory.mkdir()
    config = copy.deepcopy(RAGGED)
    stuck, stopping = directory / "stuck", directory / "stopping"
    source = {
        **config["stages"].pop("source"),
        "batches": 5,
        "use": "tests.e2e.stuck:TellingSource",
        "tell": str(stopping),
    }
    mine = {"use": "tests.e2e.stuck:Stuck", "tell": str(stuck)}
    config["stages"] = {"source": source, "mine": mine, **config["stages"]}
    config["run"]["dir"] = str(directory / "run")
    job = directory / "job.yaml"
    job.write_text(yaml.safe_dump(config, sort_keys=False))
    return job, stuck, stopping


def test_a_second_signal_aborts_with_exit_code_1(tmp_path: Path) -> None:
    """Either one, to two runs that are started together, because starting takes the time."""
    with ExitStack() as started:
        runs = []
        for second in (signal.SIGINT, signal.SIGTERM):
            job, stuck, stopping = stuck_job(tmp_path / second.name)
            runs.append((second, started.enter_context(running(job)), stuck, stopping))
        for second, process, stuck, stopping in runs:
            until(stuck.exists, partial(is_alive, process))
            process.send_signal(signal.SIGINT)
            until(stopping.exists, partial(is_alive, process))
            outcome = finish(process, second)
            assert outcome.code == 1, outcome.text
            assert f"{second.name} while the run was stopping (interrupt)" in outcome.text
            assert "Traceback" not in outcome.text
            assert not (tmp_path / second.name / "run" / "summary.json").exists()
