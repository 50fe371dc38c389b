"""The processes of a chaos test: each is started, killed, paused and looked at from outside."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.command import ROOT, environment

ENDED_S = 300.0
STEP = re.compile(r"^step (\d+) ", re.MULTILINE)


class Actor:
    """A process whose output goes to a file; ``command`` makes it, each time anew."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory = name, directory
        self.output = directory / f"{name}.out"
        self.lives = self.begun = 0
        self.paused = False
        self.peak_mb = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        self.lives += 1
        self.begun = len(self.said)
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self.command()], stdout=output, stderr=output, cwd=ROOT, env=environment()
            )

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def look(self) -> None:
        """Remember how much memory it has come to."""
        if not self.runs:
            return
        assert self._process is not None
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            peak = re.search(r"VmHWM:\s+(\d+) kB", status)
            if peak is not None:
                self.peak_mb = max(self.peak_mb, int(peak[1]) / 1024)

    def send(self, which: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(which)

    def pause(self) -> None:
        self.send(signal.SIGSTOP)
        self.paused = True

    def go_on(self) -> None:
        self.send(signal.SIGCONT)
        self.paused = False

    def kill(self) -> None:
        self.look()
        self.send(signal.SIGKILL)
        self.wait()
        self.paused = False

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(ENDED_S)

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""


class TrainerProcess(Actor):
    """``config``: a YAML file, whose run directory is ``run`` beside it."""

    def __init__(self, directory: Path, config: Path) -> None:
        super().__init__("trainer", directory)
        self.config, self.run_dir = config, directory / "run"

    def command(self) -> list[str]:
        begun = (self.run_dir / "run.json").exists()
        return ["pipeline", "run", str(self.config), *(["--resume"] if begun else ["--overwrite"])]

    @property
    def step(self) -> int:
        """The last one that its progress told of; it falls when an earlier checkpoint is gone on from."""
        found = STEP.findall(self.said)
        return int(found[-1]) if found else 0

    @property
    def trains(self) -> bool:
        """Whether it has told of a step in this life. Before, one that goes on may wait for its broker, to read what it published."""
        return self.runs and bool(STEP.search(self.said, self.begun))

    @property
    def summary(self) -> dict[str, object]:
        loaded: dict[str, object] = json.loads((self.run_dir / "summary.json").read_text())
        return loaded


class ReplicaProcess(Actor):
    def __init__(self, name: str, directory: Path, source: str, home: Path) -> None:
        super().__init__(name, directory)
        self.source, self.home = source, home
        self.journal, self.exports = directory / f"{name}.journal", directory / f"{name}-tables"
        self.exports.mkdir()

    def command(self) -> list[str]:
        return ["tests.e2e.chaos.follower", self.source, str(self.home), str(self.journal), str(self.exports)]

    def check_journal(self) -> int:
        """It never went back: within a life each cut comes behind the last, and a life begins no earlier than what the last one had made
        durable. Returns how many cuts it applied.
        """
        at, durable, cuts = (0, 0), (0, 0), 0
        for line in self.journal.read_text().splitlines():
            what, *numbers = line.split()
            if what == "begin" and len(numbers) == 3:
                begins = int(numbers[0]), int(numbers[1])
                assert begins >= durable, f"{self.name} began at {begins}, and {durable} was durable"
                at = begins
            elif len(numbers) == 5:  # a line that a kill tore says nothing
                generation, cut, _, *made = map(int, numbers)
                assert (generation, cut) > at, f"{self.name} went from {at} to {(generation, cut)}"
                at, durable, cuts = (generation, cut), max(durable, (made[0], made[1])), cuts + 1
        return cuts


def wait_until(condition: object, seconds: float) -> bool:
    """Whether ``condition()`` came true within ``seconds``."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())
