"""What no step waits for runs in the time that training leaves; what steps wait for does not."""

from __future__ import annotations

import copy
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.stream import RowStreamer
from pipeline.stream.changed import ChangedSet
from tests.e2e.jobs import RAGGED, run_job


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a nice value per thread")
@pytest.mark.parametrize(("nice", "idle"), [(0, False), (0, True), (7, False), (7, True)])
def test_cuts_give_way_and_steps_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nice: int, idle: bool) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    seen: dict[str, set[tuple[int, bool]]] = {"cut": set(), "compact": set(), "step": set()}

    def look(what: str) -> None:
        thread = threading.get_native_id()
        idle = os.sched_getscheduler(thread) == os.SCHED_IDLE
        seen[what].add((os.getpriority(os.PRIO_PROCESS, thread), idle))

    def watch(owner: type, name: str, what: str) -> None:
        call = getattr(owner, name)

        def watched(self: Any, *args: Any) -> Any:
            look(what)
            return call(self, *args)

        monkeypatch.setattr(owner, name, watched)

    watch(RowStreamer, "cut", "cut")
    watch(ChangedSet, "compact", "compact")
    monkeypatch.setattr(ChangedSet, "crowded", True)
    config = copy.deepcopy(RAGGED)
    config["run"] = {**config.get("run", {}), "background_nice": nice}
    config["stages"]["stream"]["gives_way"] = idle
    run_job(tmp_path / "run", config, on_step=lambda _step: look("step"))
    # Cuts behind a late one, and those behind the last step, give way to nobody.
    assert (max(ours, nice), idle) in seen["cut"] <= {(ours, False), (max(ours, nice), idle)}
    assert seen["compact"] == seen["step"] == {(ours, False)}
