"""How a run goes is shown: a live table on a terminal, plain lines elsewhere, with everything one looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.session import progress
from pipeline.session.progress import Progress
from tests.e2e.jobs import RAGGED, run_job


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
    monkeypatch.setenv("COLUMNS", "400")


def test_a_run_says_how_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_job(tmp_path / "run", RAGGED, "run.progress_s=0.005")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert lines
    for shown in ("samples ", "samples/s ", "loss ", "hit rate ", "depth source->distinct ", "lag_steps "):
        assert shown in lines[-1], lines[-1]


@pytest.mark.parametrize("terminal", [False, True])
def test_lines_elsewhere_a_table_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    figures = iter([{"step": 7, "loss": 0.5}, {"step": 8, "loss": 0.25}])
    with Progress(lambda: next(figures)) as shown:
        shown.show()
        shown.show()
    err = capsys.readouterr().err
    if terminal:
        assert "8" in err
        assert "0.25" in err
        assert "step 8" not in err
    else:
        assert err == "step 7  loss 0.5\nstep 8  loss 0.25\n"
