"""Runs jobs of this project as processes of their own, for benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 1200


def have_data(name: str) -> bool:
    """Whether the real log ``name`` is there."""
    return (data_root() / name).is_dir()


def data_root() -> Path:
    return Path(os.environ.get("ROWSTREAM_DATA", ROOT / ".." / "shared" / "data"))


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory beside the checkout's runs: on a real disk, unlike many a /tmp."""
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "runs", prefix="bench-") as directory:
        yield Path(directory)


def run_config(
    config: str, directory: Path, overrides: Sequence[str], *, replica: bool | str = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train ``config``; with ``replica`` another process follows the stream: that of the run directory, or one at a URL. Returns (summary,
    the replica's figures).
    """
    command = ["-m", "pipeline", "run", config, f"run.dir={directory}", "replica.embedded=false", *overrides]
    _, figures = _run(command, directory, replica)
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return summary, figures


def measure_windows(
    config: str, directory: Path, overrides: Sequence[str], *, replica: bool = False, module: str = "stream_windows"
) -> dict[str, Any]:
    """What ``measure`` of a module beside this one returns; with ``replica`` another process follows the stream, and its figures are there
    under ``replica``.
    """
    out, figures = _run(["-m", f"tools.bench.{module}", config, str(directory), *overrides], directory, replica)
    windows: dict[str, Any] = json.loads(out.splitlines()[-1])
    return windows | {"replica": figures}


def _run(command: Sequence[str], directory: Path, replica: bool | str) -> tuple[str, dict[str, Any]]:
    """(what the process printed, the figures of the replica process beside it)."""
    follower = None
    if replica:
        source = replica if isinstance(replica, str) else str(directory / "stream")
        follow = ["-m", "pipeline", "replica", source, "--follow", "--until-end", "--json"]
        follower = subprocess.Popen([sys.executable, *follow], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    try:
        done = subprocess.run(
            [sys.executable, *command], check=True, timeout=TIMEOUT_S, cwd=ROOT, capture_output=True, text=True
        )
        figures = {}
        if follower is not None:
            out, _ = follower.communicate(timeout=TIMEOUT_S)
            figures = json.loads(out.splitlines()[-1])
    finally:
        if follower is not None:
            follower.kill()
            follower.wait()
    return done.stdout, figures
