"""Runs ``python -m pipeline`` as a user does: another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 240


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams, line breaks of the terminal's width undone."""
        return " ".join((self.out + "\n" + self.err).split())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}


def pipeline(*arguments: str | Path) -> Outcome:
    """Run to the end."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start and return at once."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )


def finish(process: subprocess.Popen[str], send: signal.Signals | None = None) -> Outcome:
    """Send a signal, if any, and wait."""
    if send is not None:
        process.send_signal(send)
    out, err = process.communicate(timeout=TIMEOUT_S)
    return Outcome(process.returncode, out, err)
