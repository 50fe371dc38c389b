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
    config: str, directory: Path, overrides: Sequence[str], *, replica: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train ``config``; with ``replica`` another process follows the stream. Returns (summary, the replica's figures)."""
    command = [sys.executable, "-m", "pipeline"]
    follower = None
    if replica:
        follow = [*command, "replica", str(directory / "stream"), "--follow", "--until-end", "--json"]
        follower = subprocess.Popen(follow, stdout=subprocess.PIPE, cwd=ROOT, text=True)
    try:
        subprocess.run(
            [*command, "run", config, f"run.dir={directory}", "replica.embedded=false", *overrides],
            check=True,
            timeout=TIMEOUT_S,
            cwd=ROOT,
            capture_output=True,
        )
        figures = {}
        if follower is not None:
            out, _ = follower.communicate(timeout=TIMEOUT_S)
            figures = json.loads(out.splitlines()[-1])
    finally:
        if follower is not None:
            follower.kill()
            follower.wait()
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return summary, figures
