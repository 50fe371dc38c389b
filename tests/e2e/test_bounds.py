"""G4 and G7 around the stream: what stalls costs no training and no memory, and what is lost is told."""

from __future__ import annotations

import copy
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.session.follower import Follower
from pipeline.stream import RowStreamer
from pipeline.wire import FileTransport
from tests.e2e.command import finish, here, start
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, run_job
from tests.e2e.patience import until
from tests.e2e.small import good_job
from tests.e2e.test_faults import resident_bytes

STEPS = 1500


def with_steps(steps: int, **stream: Any) -> dict[str, Any]:
    config = copy.deepcopy(RAGGED)
    config["stages"]["source"]["batches"] = steps
    config["stages"]["stream"] |= stream
    return config


def test_a_transport_that_stalls_grows_no_memory_and_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first frame behind which more of a cut is to be read hangs until the last step has ended: old rows must be kept meanwhile."""
    config = with_steps(STEPS, every="1 steps", snapshot_every=None, chunk_rows=1)
    config["store"] |= {"shadow_bytes": 1000, "spill_bytes": 0}
    all_ended, publish, opened = threading.Event(), FileTransport.publish, RowStreamer.open
    streamers: list[RowStreamer] = []
    held: dict[int, tuple[int, int, int]] = {}

    def stalled(self: FileTransport, frames: Any, *, sync: bool) -> Any:
        if streamers[0]._source.store._snapshots.open:  # type: ignore[attr-defined]
            assert all_ended.wait(120)
        return publish(self, frames, sync=sync)

    def remember(self: RowStreamer) -> None:
        streamers.append(self)
        opened(self)

    def look(step: int) -> None:
        if step in (STEPS // 3, STEPS):
            held[step] = (resident_bytes(), streamers[0].changed.count, streamers[0].changed.nbytes)
        if step == STEPS:
            all_ended.set()

    monkeypatch.setattr(FileTransport, "publish", stalled)
    monkeypatch.setattr(RowStreamer, "open", remember)
    job = run_job(tmp_path / "run", config, on_step=look)
    (early, _, _), (late, waiting, waiting_bytes) = held[STEPS // 3], held[STEPS]
    assert late - early < 8 << 20
    assert waiting < 100_000
    assert waiting_bytes < 1 << 20
    assert job.summary["abandoned"] >= 1, "the cut kept its old rows, so nothing was stalled"
    assert job.summary["cuts"] < 20
    assert job.summary["lost"] == 0
    assert_replica_equals(job)


def test_a_replica_that_stands_still_delays_nobody_and_catches_up(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "theirs.npz"
    replica = start("replica", run, "--follow", "--until-end", "--table", "shared", "--export", out, "--json")
    try:
        os.kill(replica.pid, signal.SIGSTOP)
        job = run_job(run, with_steps(300, every="1 steps"))
        os.kill(replica.pid, signal.SIGCONT)
        outcome = finish(replica)
    finally:
        if replica.poll() is None:
            replica.kill()
            replica.communicate()
    assert outcome.code == 0, outcome.text
    figures = json.loads(outcome.out)
    assert (figures["step"], figures["ended"]) == (300, True)
    ours = job.tables()["shared"]
    with np.load(out) as theirs:
        assert np.array_equal(theirs["ids"], ours["ids"])
        assert theirs["weights"].tobytes() == ours["weights"].tobytes()


def test_views_pinned_beyond_the_configured_bytes_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_steps(200, every="1 steps")
    config["replica"] = {"embedded": True, "pinned_bytes": 3000}
    followers: list[Follower] = []
    views: list[Any] = []
    begin = Follower.start

    def remember(self: Follower) -> None:
        begin(self)
        followers.append(self)

    def pin(step: int) -> None:
        replica = followers[0].replica
        assert replica is not None
        if step == 20:
            until(lambda: replica.step > 0)
            views.append(replica.view())

    monkeypatch.setattr(Follower, "start", remember)
    job = run_job(tmp_path / "run", config, on_step=pin)
    assert views[0].expired
    assert job.summary["freshness_ms"]["steps"] == 200


def test_a_run_that_lost_rows_says_so_and_exits_1(tmp_path: Path) -> None:
    outcome = here(
        "run", good_job(tmp_path), "stages.stream.use=tests.e2e.lossy:LossyStream", "stages.stream.every=1000 steps"
    )
    assert outcome.code == 1, outcome.text
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["lost"] > 0
    assert f"{summary['lost']} changed rows were not published" in outcome.out
