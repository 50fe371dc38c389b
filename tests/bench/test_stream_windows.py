"""The overhead of streaming is taken in windows of one run, in turn with the stream and without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tools.bench.stream_windows import SETTLE_STEPS, WARM_STEPS, WINDOW_STEPS, Windows


def test_a_run_has_as_many_windows_with_the_stream_as_without(tmp_path: Path) -> None:
    steps = WARM_STEPS + 6 * WINDOW_STEPS + SETTLE_STEPS
    overrides = [f"run.steps={steps}", "stages.stream.every=2 steps"]
    command = [sys.executable, "-m", "tools.bench.stream_windows", "quickstart", str(tmp_path / "run"), *overrides]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, timeout=300)
    windows = json.loads(done.stdout.splitlines()[-1])
    assert len(windows["on_ms"]) == len(windows["off_ms"]) == 3
    assert all(ms > 0 for ms in windows["on_ms"] + windows["off_ms"])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 < summary["rows_streamed"] < summary["rows_updated"], "the stream was on for some steps and off for others"


def test_the_stream_is_on_in_every_other_window() -> None:
    windows = Windows()
    seen = []
    for step in range(1, WARM_STEPS + 4 * WINDOW_STEPS):
        windows.at_fence(step, None)
        seen.append(windows.on)
    assert all(seen[: WARM_STEPS - 1])
    turns = [seen[WARM_STEPS - 1 + n * WINDOW_STEPS :][:WINDOW_STEPS] for n in range(4)]
    assert turns == [[False] * WINDOW_STEPS, [True] * WINDOW_STEPS] * 2
