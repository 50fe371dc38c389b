"""The replica inside a run."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline.replica import Replica
from pipeline.replica.warm import warm_up
from pipeline.session.follower import Follower
from tests.e2e.jobs import run_job


def test_nothing_is_read_before_the_stream_is_the_runs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it reads what another run left there, and the run that replaces it fails."""
    run_job(tmp_path / "left", "quickstart", "run.steps=2", "replica.embedded=false")
    followed, follow = threading.Event(), Replica.follow

    def follow_and_tell(replica: Replica, stop: threading.Event) -> None:
        followed.set()
        follow(replica, stop)

    monkeypatch.setattr(Replica, "follow", follow_and_tell)
    warm_up()
    follower = Follower(str(tmp_path / "left"), 1 << 20)
    follower.start()
    assert not followed.wait(0.5)
    follower.begin()
    assert followed.wait(60)
    assert follower.finish()["position"].generation == 1
    follower.close()


def test_a_run_without_a_step_ends_with_what_its_stream_has(tmp_path: Path) -> None:
    run_job(tmp_path / "left", "quickstart", "run.steps=2", "replica.embedded=false")
    follower = Follower(str(tmp_path / "left"), 1 << 20)
    follower.start()
    assert follower.finish()["position"].generation == 1
    follower.close()
