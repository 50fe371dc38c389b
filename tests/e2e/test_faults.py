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
from pipeline.flow import Stage, StageError
from pipeline.replica import Replica
from pipeline.store import DramTier
from pipeline.wire import FileTransport
from stages.items import RawBatch
from stages.sources.log_source import LogSource
from tests.e2e.jobs import RAGGED, run_job
from tests.e2e.small import config_file, lines, text
from tests.e2e.test_replica import assert_replica_equals


def test_a_full_disk_stops_training_and_leaves_the_stream_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = {"bytes": 0}
    real_write = os.pwrite

    def write(descriptor: int, data: Any, offset: int) -> int:
        if ".seg" in os.readlink(f"/proc/self/fd/{descriptor}"):
            written["bytes"] += len(data)
            if written["bytes"] > 40_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(StageError) as failed:
        run_job(tmp_path / "run", RAGGED, "stages.source.batches=400", "stages.stream.every='1 steps'")
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


class Slow(Stage):
    """A user's stage that takes its time, on a lane of its own."""

    consumes = RawBatch
    produces = RawBatch
    lane = "slow"

    def work(self, item: Any) -> Any:
        time.sleep(0.01)
        return item


def test_a_slow_stage_is_named_as_the_bottleneck(tmp_path: Path) -> None:
    config = copy.deepcopy(RAGGED)
    stages = config["stages"]
    config["stages"] = {"source": stages.pop("source"), "mine": {"use": "tests.e2e.test_faults:Slow"}, **stages}
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
    """G4: ten times the steps over the same ids take no more memory at their end than the first tenth took."""
    config = copy.deepcopy(RAGGED)
    config["stages"]["source"]["batches"] = 3000
    held: dict[int, int] = {}

    def look(step: int) -> None:
        if step in (1000, 3000):
            held[step] = resident_bytes()

    run_job(tmp_path / "run", config, on_step=look)
    assert held[3000] - held[1000] < 16 << 20


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
    get = DramTier.get

    def slow(self: Any, table: str, ids_n: Any) -> Any:
        time.sleep(0.01)
        return get(self, table, ids_n)

    monkeypatch.setattr(DramTier, "get", slow)
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
    publish = FileTransport.publish

    def slow(self: Any, frames: Any, *, sync: bool) -> Any:
        time.sleep(0.02)
        return publish(self, frames, sync=sync)

    monkeypatch.setattr(FileTransport, "publish", slow)
    job = run_job(tmp_path / "run", RAGGED, "stages.stream.every='1 steps'")
    assert job.summary["lag_steps"] > 1
    assert job.summary["cuts"] < 25
    assert_replica_equals(job)
