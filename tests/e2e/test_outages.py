"""A broker that fails: training goes on, the state is shown, what was not published is written down, and `publish` sends it."""

from __future__ import annotations

import copy
import errno
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.files import DirectoryLock
from pipeline.flow import StageError
from pipeline.rowlog import RowLogError
from pipeline.session import progress
from pipeline.session.disk import Disk
from pipeline.session.resources import Resources
from tests.e2e.broken_broker import Broker
from tests.e2e.command import here
from tests.e2e.followed import assert_replica_equals
from tests.e2e.gate import CONDITIONS
from tests.e2e.jobs import RAGGED, Job, run_job
from tests.e2e.patience import until
from tests.e2e.test_expiry import config as expiring
from tests.e2e.test_failing_disks import Failing, FailingFiles, chain

STEPS = 60
SOON = ("stages.stream.retry.first=1ms", "stages.stream.retry.longest=20ms")


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker()
    made.serve(monkeypatch)
    return made


def job(**stream: Any) -> dict[str, Any]:
    config = copy.deepcopy(RAGGED)
    config["stages"]["source"]["batches"] = STEPS
    config["stages"]["stream"] |= {"every": "1 steps", **stream}
    return config


def at(step: int, call: Callable[[], object], then: int | None = None, after: Callable[[], None] | None = None) -> Any:
    """A listener of steps."""

    def look(now: int) -> None:
        if now == step:
            call()
        elif now == then:
            assert after is not None
            after()

    return look


def assert_published(done: Job) -> None:
    assert done.summary["lost"] == 0
    assert done.summary["stream"]["state"] == "ok"
    assert not (done.dir / "backlog.json").exists()
    assert_replica_equals(done)


def gated(monkeypatch: pytest.MonkeyPatch, step: int, condition: Callable[[], bool], **stream: Any) -> dict[str, Any]:
    """A job whose batch ``step`` is sent only once ``condition`` holds."""
    monkeypatch.setitem(CONDITIONS, "outage", condition)
    config = job(**stream)
    stages = config["stages"]
    gate = {"use": "tests.e2e.gate:Gate", "at": step, "name": "outage"}
    config["stages"] = {"source": stages.pop("source"), "gate": gate, **stages}
    return config


def test_a_broker_that_is_absent_at_the_start_gets_everything_once_it_is_there(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.is_down = True

    def come() -> bool:
        broker.is_down = broker.refused < 3
        return not broker.is_down

    done = run_job(tmp_path / "run", gated(monkeypatch, 30, come), *SOON)
    assert_published(done)
    assert done.summary["stream"]["failures"] > 2
    assert done.summary["stream"]["outages"] == 1
    assert "BrokerUnreachable: broker.test: connection refused" in done.summary["stream"]["last_error"]


def test_a_resumed_run_waits_for_a_broker_that_is_away(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run_job(run, job(), *SOON, "run.steps=30", "checkpoint.every='10 steps'")
    broker.is_down, before = True, broker.refused

    def say(_self: object, text: str) -> None:
        if text.startswith("waiting up to 60s for the stream"):
            assert "connection refused" in text
            broker.is_down = False

    monkeypatch.setattr(progress.Progress, "say", say)
    done = run_job(run, job(), *SOON, resume=True)
    assert broker.refused > before
    assert done.summary["last_step"] == STEPS
    assert_published(done)


def test_a_resumed_run_whose_broker_stays_away_says_so(tmp_path: Path, broker: Broker) -> None:
    run = tmp_path / "run"
    run_job(run, job(), *SOON, "run.steps=30", "checkpoint.every='10 steps'")
    broker.is_down, before = True, broker.refused
    with pytest.raises(StageError, match="connection refused"):
        run_job(run, job(), *SOON, "stages.stream.drain_timeout=50ms", resume=True)
    assert broker.refused > before + 1, "it asked once only"


def test_a_resumed_run_that_waits_for_its_broker_can_be_stopped(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run_job(run, job(), *SOON, "run.steps=30", "checkpoint.every='10 steps'")
    broker.is_down = True

    def say(_self: object, text: str) -> None:
        if text.startswith("waiting up to"):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Timer(5, setattr, (broker, "is_down", False)).start()  # who does not stop goes on then

    monkeypatch.setattr(progress.Progress, "say", say)
    stopped = here(
        "run", tmp_path / "run.yaml", f"run.dir={run}", "--resume", "stages.stream.drain_timeout=600s", *SOON
    )
    assert "connection refused" in stopped.text
    assert stopped.code == 1


def test_while_a_broker_is_gone_training_goes_on_and_the_state_is_shown(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Resources] = []
    shown: list[dict[str, Any]] = []

    def go() -> None:
        broker.is_down = True

    def look() -> bool:
        report = opened[0].stream_report
        if report["stream"]["state"] != "retrying" or report["lag_steps"] < 5:
            return False
        shown.append(dict(report["stream"]))
        broker.is_down = False
        return True

    config = gated(monkeypatch, 40, look)
    done = run_job(tmp_path / "run", config, *SOON, on_step=at(10, go), on_open=opened.append)
    assert "connection refused" in shown[0]["last_error"]
    assert_published(done)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("forgets", [False, True], ids=["kept", "expiring"])
def test_a_broker_that_comes_back_without_its_data_gets_every_row(
    tmp_path: Path, broker: Broker, forgets: bool, shards: int
) -> None:
    config = expiring() if forgets else job()
    config["stages"]["stream"]["shards"] = shards
    done = run_job(tmp_path / "run", config, *SOON, "stages.stream.every='1 steps'", on_step=at(25, broker.lose))
    assert_published(done)
    assert done.summary["snapshot_cuts"] >= 1


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("forgets", [False, True], ids=["kept", "expiring"])
def test_a_backlog_beyond_its_bound_collapses_and_the_replica_is_still_equal(
    tmp_path: Path, broker: Broker, forgets: bool, shards: int
) -> None:
    config = expiring() if forgets else job()
    config["stages"]["stream"]["shards"] = shards
    config["stages"]["source"] |= {"batches": STEPS, "samples": 300, "vocabulary": 20_000}
    config["store"]["l1_rows"] = 8192
    config["tables"]["shared"].pop("admission", None)
    wanted = ("stages.stream.every='1 steps'", "stages.stream.backlog_bytes=64KiB", "replica.embedded=true")
    if forgets:
        config["tables"]["shared"]["expiry"] = {"steps": 8, "every": 3}

    def go() -> None:
        broker.is_down = True

    def come() -> None:
        broker.is_down = False

    done = run_job(tmp_path / "run", config, *SOON, *wanted, on_step=at(10, go, 50, come))
    assert done.summary["collapses"] >= 1
    assert done.summary["freshness_ms"]["steps"] > 0, "the replica that followed meanwhile saw nothing"
    assert bool(done.summary["snapshot_cuts"]) == forgets, "where rows end only a snapshot cut tells which are left"
    assert_published(done)


def test_a_trainer_that_was_fenced_out_stops_and_says_so(tmp_path: Path, broker: Broker) -> None:
    def fence() -> None:
        broker.is_fenced = True

    config = job()
    config["stages"]["source"]["batches"] = 100_000
    with pytest.raises(StageError) as stopped:
        run_job(tmp_path / "run", config, *SOON, on_step=at(10, fence))
    assert stopped.value.stage == "stream"
    assert "generation 9 has claimed the stream; one trainer writes a stream" in chain(stopped.value)


def test_whoever_wants_it_is_stopped_by_the_first_failure(tmp_path: Path, broker: Broker) -> None:
    def go() -> None:
        broker.is_down = True

    config = job(on_failure="stop")
    config["stages"]["source"]["batches"] = 100_000
    with pytest.raises(StageError) as stopped:
        run_job(tmp_path / "run", config, on_step=at(10, go))
    assert "connection refused" in chain(stopped.value)


def end_without_a_broker(directory: Path, broker: Broker, config: dict[str, Any] | None = None) -> Job:
    def go() -> None:
        broker.is_down = True

    wanted = ("stages.stream.drain_timeout=50ms",)
    return run_job(directory, config or job(), *SOON, *wanted, on_step=at(20, go))


@pytest.mark.parametrize("forgets", [False, True], ids=["kept", "expiring"])
def test_what_is_left_at_the_end_is_written_down_and_publish_sends_it(
    tmp_path: Path, broker: Broker, forgets: bool
) -> None:
    run = tmp_path / "run"
    done = end_without_a_broker(run, broker, expiring() if forgets else None)
    assert done.summary["lost"] > 0
    assert done.summary["stream"]["state"] == "behind"
    backlog = json.loads((run / "backlog.json").read_text())
    assert backlog["last_step"] == STEPS
    assert 0 < backlog["step"] < STEPS
    assert "connection refused" in backlog["reason"]

    still = here("publish", run, "--timeout=200ms")
    assert still.code == 1, "the broker is still gone"
    assert "connection refused" in still.text
    broker.is_down = False
    outcome = here("publish", run)
    assert outcome.code == 0, outcome.text
    assert f"replicas have step {STEPS}" in outcome.out
    assert_replica_equals(done)
    assert not (run / "backlog.json").exists()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["lost"], summary["stream"]["state"]) == (0, "ok")
    assert summary["samples"] == done.summary["samples"], "what training came to is gone"

    again = here("publish", run)
    assert again.code == 0, again.text
    assert "nothing is left to publish" in again.out


def test_the_progress_line_says_that_the_stream_is_not_sent(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
    monkeypatch.setenv("COLUMNS", "600")
    broker.is_down = True
    run_job(tmp_path / "run", job(drain_timeout="50ms"), *SOON, "run.progress_s=0.005")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert any("stream retrying since" in line and "connection refused" in line for line in lines), lines[-1]


def test_a_run_that_left_something_exits_1_and_says_what_to_do(tmp_path: Path, broker: Broker) -> None:
    broker.is_down = True
    config = tmp_path / "job.yaml"
    longer = job()
    longer["stages"]["source"]["batches"] = 2 * STEPS
    config.write_text(json.dumps(longer))
    run = tmp_path / "run"
    outcome = here("run", config, f"run.dir={run}", f"run.steps={STEPS}", *SOON, "stages.stream.drain_timeout=50ms")
    assert outcome.code == 1, outcome.text
    assert "changed rows were not published" in outcome.out
    assert f"`python -m pipeline publish {run}` sends what is left" in outcome.text
    broker.is_down = False
    assert here("publish", run).code == 0
    assert here("run", config, f"run.dir={run}", "--resume").code == 0, "training does not go on behind it"
    assert json.loads((run / "summary.json").read_text())["last_step"] == 2 * STEPS


def test_a_publish_that_hangs_for_the_whole_run_stops_no_step_and_is_ended(tmp_path: Path, broker: Broker) -> None:
    ended: list[int] = []

    def look(step: int) -> None:
        ended.append(step)
        if step == 3:
            broker.hangs.set()

    done = run_job(tmp_path / "run", job(drain_timeout="50ms"), *SOON, on_step=look)
    assert ended == list(range(1, STEPS + 1))
    assert broker.hangs.is_set()
    assert done.summary["stream"]["state"] == "behind"
    broker.hangs.clear()
    assert here("publish", tmp_path / "run").code == 0
    assert_replica_equals(done)


def test_a_live_run_publishes_by_itself(tmp_path: Path, broker: Broker) -> None:
    run = tmp_path / "run"
    end_without_a_broker(run, broker)
    with DirectoryLock(str(run)):
        outcome = here("publish", run)
    assert outcome.code == 2
    assert f"a run goes on in {run}" in outcome.text


def die(_step: int) -> None:
    raise RuntimeError("the trainer died")


def test_a_run_that_crashed_is_published_up_to_its_newest_checkpoint(tmp_path: Path, broker: Broker) -> None:
    run = tmp_path / "run"

    def go() -> None:
        broker.is_down = True

    with pytest.raises(StageError):
        run_job(run, job(), *SOON, "checkpoint.every='10 steps'", on_step=at(20, go, 50, lambda: die(50)))
    broker.is_down = False
    outcome = here("publish", run)
    assert outcome.code == 0, outcome.text
    summary = json.loads((run / "summary.json").read_text())
    assert 20 <= summary["last_step"] < 50
    assert f"replicas have step {summary['last_step']}" in outcome.out


def test_a_stream_that_is_ahead_of_the_newest_checkpoint_needs_training(tmp_path: Path) -> None:
    """All is published, and then the last checkpoint cannot be written."""
    run, opened = tmp_path / "run", list[Resources]()
    failing = Failing("create", "checkpoints", errno.EROFS)

    def fail() -> None:
        until(lambda: opened[0].checkpoints.written > 0)
        failing.now.set()

    with pytest.raises((StageError, OSError, RowLogError), match="Read-only"):
        run_job(
            run,
            job(),
            "checkpoint.every='20 steps'",
            on_step=at(58, fail),
            on_open=opened.append,
            disk=Disk(FailingFiles(failing)),
        )
    outcome = here("publish", run)
    assert outcome.code == 1, outcome.text
    assert "the stream shows step" in outcome.text
    assert "replicas never go back" in outcome.text


def test_a_full_disk_stops_no_training_and_publish_sends_the_rest(tmp_path: Path) -> None:
    full = Failing("write", "stream", errno.ENOSPC)
    disk, wanted = Disk(FailingFiles(full)), job(drain_timeout="50ms")
    done = run_job(tmp_path / "run", wanted, *SOON, on_step=at(20, full.now.set), disk=disk)
    assert done.summary["last_step"] == STEPS
    assert "the disk is full" in done.summary["stream"]["last_error"]
    assert done.summary["lost"] > 0
    assert here("publish", tmp_path / "run").code == 0
    assert_replica_equals(done)


def test_a_run_without_a_stream_has_nothing_to_publish(tmp_path: Path) -> None:
    run_job(tmp_path / "run", job(), "stages.stream.enabled=false", "stages.source.batches=3")
    outcome = here("publish", tmp_path / "run")
    assert outcome.code == 2
    assert "stage `stream`" in outcome.text
