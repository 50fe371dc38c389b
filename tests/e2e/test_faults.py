"""What goes wrong in a run, and what it leaves behind."""

from __future__ import annotations

import copy
import errno
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.files import DiskFull
from pipeline.flow import StageError
from pipeline.replica import Replica
from pipeline.session.resources import Resources
from pipeline.store import DramTier
from pipeline.wire import FileTransport
from stages.sources.log_source import LogSource
from tests.e2e.command import here
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, run_job
from tests.e2e.patience import until
from tests.e2e.small import config_file, good_job, lines, text


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, room_bytes: int) -> None:
    """From now on the segments of streams have so much room, all together."""
    written, real_write = {"bytes": 0}, os.pwritev

    def write(descriptor: int, parts: Any, offset: int) -> int:
        if "/stream/" in os.readlink(f"/proc/self/fd/{descriptor}"):
            written["bytes"] += sum(map(len, parts))
            if written["bytes"] > room_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(descriptor, parts, offset)

    monkeypatch.setattr(os, "pwritev", write)


def test_a_full_disk_stops_training_and_leaves_the_stream_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first cut has room, even one of all rows that there are; all cuts together have not."""
    fill_the_disk(monkeypatch, 120_000)
    wanted = ("stages.source.batches=400", "stages.stream.every='1 steps'", "stages.stream.on_failure=stop")
    with pytest.raises(StageError) as failed:
        run_job(tmp_path / "run", RAGGED, *wanted)
    assert failed.value.stage == "stream"
    causes = [failed.value.__cause__, getattr(failed.value.__cause__, "__cause__", None)]
    assert any(isinstance(cause, DiskFull) for cause in causes)
    monkeypatch.undo()
    replica = Replica(str(tmp_path / "run" / "stream"))
    replica.apply_available()
    with replica.view() as view:
        assert view.step > 1
        assert any(view.ids(table).size for table in ("shared", "wide"))
    replica.close()


def test_a_full_disk_is_told_by_the_command_line_and_replicas_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, run, out = good_job(tmp_path, 2000), tmp_path / "run", tmp_path / "user.npz"
    fill_the_disk(monkeypatch, 8_000)
    outcome = here("run", job, "stages.stream.every=1 steps", "stages.stream.on_failure=stop")
    monkeypatch.undo()
    assert outcome.code == 1, outcome.text
    assert "stage 'stream'" in outcome.text
    assert "the disk is full" in outcome.text
    assert "0000000001.seg" in outcome.text
    assert "Traceback" not in outcome.text
    followed = here("replica", run, "--table", "user", "--export", out)
    assert followed.code == 0, followed.text
    with np.load(out) as rows:
        assert rows["ids"].size


def test_a_slow_stage_is_named_as_the_bottleneck(tmp_path: Path) -> None:
    config = copy.deepcopy(RAGGED)
    stages = config["stages"]
    config["stages"] = {
        "source": stages.pop("source"),
        "mine": {"use": "tests.e2e.paced:Paced", "seconds": 0.01},
        **stages,
    }
    assert run_job(tmp_path / "run", config).summary["bottleneck"] == "mine"


def test_a_slow_source_is_named_as_the_bottleneck(tmp_path: Path) -> None:
    config = copy.deepcopy(RAGGED)
    config["stages"]["source"]["use"] = "tests.e2e.slow_source:SlowRaggedSource"
    assert run_job(tmp_path / "run", config).summary["bottleneck"] == "source"


def test_a_stalled_disk_under_the_stream_stops_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts hang until the last step has ended: training must get there without them, and the drain then publishes all."""
    config = copy.deepcopy(RAGGED)
    config["stages"]["source"]["batches"] = 120
    config["stages"]["stream"]["every"] = "1 steps"
    all_ended, real_publish = threading.Event(), FileTransport.publish
    waited: list[bool] = []

    def publish(self: Any, frames: Any, *, sync: bool) -> Any:
        waited.append(all_ended.wait(60))
        return real_publish(self, frames, sync=sync)

    monkeypatch.setattr(FileTransport, "publish", publish)
    job = run_job(tmp_path / "run", config, on_step=lambda step: all_ended.set() if step == 120 else None)
    assert all(waited)
    assert job.summary["cuts"] < 10, "the steps were not coalesced"
    assert_replica_equals(job)


def test_nothing_of_a_step_with_a_loss_that_is_not_finite_is_applied(tmp_path: Path) -> None:
    config = copy.deepcopy(RAGGED)
    config["dense_optimizer"]["lr"] = 1e30
    config["dense_optimizer"]["use"] = "SGD"
    with pytest.raises(StageError) as failed:
        run_job(tmp_path / "run", config)
    assert failed.value.stage == "train"


def test_memory_stays_flat_however_long_a_run_is(tmp_path: Path) -> None:
    """G4: three times the steps over the same ids take no more memory at their end than the first third took."""
    config = copy.deepcopy(RAGGED)
    config["stages"]["source"]["batches"] = 1500
    held: dict[int, int] = {}

    def look(step: int) -> None:
        if step in (500, 1500):
            held[step] = resident_bytes()

    run_job(tmp_path / "run", config, on_step=look)
    assert held[1500] - held[500] < 8 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_summary_of_a_run_is_strict_json(tmp_path: Path) -> None:
    job = run_job(tmp_path / "run", RAGGED)
    text = (job.dir / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["lost"] == 0


def test_ids_at_the_edges_of_int64_are_ordinary(tmp_path: Path) -> None:
    job = run_job(tmp_path / "run", RAGGED)
    edges = {np.iinfo(np.int64).min, -1, np.iinfo(np.int64).max}
    assert edges <= set(job.tables()["shared"]["ids"].tolist())


def test_a_slow_tier_shows_as_the_stage_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get_rows = DramTier.get_rows

    def slow(self: Any, tables_n: Any, ids_n: Any, at: Any) -> Any:
        time.sleep(0.02)
        return get_rows(self, tables_n, ids_n, at)

    monkeypatch.setattr(DramTier, "get_rows", slow)
    assert run_job(tmp_path / "run", RAGGED).summary["bottleneck"] == "prefetch"


def test_a_slow_disk_under_the_source_shows_as_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absorb = LogSource._absorb

    def slow(self: Any, table: Any) -> Any:
        time.sleep(0.01)
        return absorb(self, table)

    monkeypatch.setattr(LogSource, "_absorb", slow)
    for number in range(40):
        (tmp_path / f"log-{number:02}.csv").write_text(text(lines(16)))
    job = config_file(tmp_path, tmp_path / "log-*.csv")
    assert run_job(tmp_path / "run", str(job)).summary["bottleneck"] == "source"


def test_a_slow_disk_under_the_stream_shows_in_how_far_it_lags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cut publishes takes as long as five steps; step 40 waits for the report on the first of them."""
    publish, ended, lags = FileTransport.publish, [0], list[int]()
    opened: list[Resources] = []

    def slow(self: Any, frames: Any, *, sync: bool) -> Any:
        enough = min(ended[0] + 5, 40)
        until(lambda: ended[0] >= enough)
        return publish(self, frames, sync=sync)

    def look(step: int) -> None:
        ended[0] = step
        if step == 40:
            report = opened[0].stream_report
            until(lambda: "lag_steps" in report)
            lags.append(report["lag_steps"])

    monkeypatch.setattr(FileTransport, "publish", slow)
    job = run_job(tmp_path / "run", RAGGED, "stages.stream.every='1 steps'", on_step=look, on_open=opened.append)
    assert lags[0] > 1
    assert job.summary["cuts"] < 25
    assert_replica_equals(job)
