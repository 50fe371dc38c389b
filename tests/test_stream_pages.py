"""The pages on streams, command by command and file by file, as somebody types them: each page in a directory of its own, in its order.

Other than typed are the ports, which have to be free, and the steps of a run that names none.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.command import TIMEOUT_S, environment
from tests.e2e.jobs import run_job
from tests.e2e.patience import until
from tests.support.servers import free_port

PORTS = ("4222", "6379", "8787")
"""As the pages name them."""
PROGRAMS = {"nats-server": "nats-server", "redis-server": "redis-server", "curl": "curl"}
"""What commands begin with, besides ours, and the Debian packages they come with."""
STEP = re.compile(
    rf"^ {{4,}}(?P<command>(?:python -m pipeline|{'|'.join(PROGRAMS)}) [^\n]*)$"
    r"|^<!-- file: (?P<file>\S+) -->\n```\w+\n(?P<text>.*?)```$",
    flags=re.DOTALL | re.MULTILINE,
)
PAGES = ("README.md", "pipeline/replica/REPLICAS.md", "pipeline/stream/STREAMS.md", "pipeline/wire/broker/BROKERS.md")
MANY_STEPS = 30


def steps_of(page: str) -> list[tuple[str, str]]:
    """(command, "") or (file, its text), in order; of the README what is about streams."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if page == "README.md":
        text = text[text.index("## Following the stream") : text.index("## Logs of your own")]
    return [(match["command"] or match["file"], match["text"] or "") for match in STEP.finditer(text)]


class Typist:
    """Types what a page shows, in one directory. What goes on until it is told to end does so beside what follows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ports = {port: str(free_port()) for port in PORTS}
        self._beside: list[tuple[str, subprocess.Popen[str]]] = []

    def type(self, step: str, text: str) -> None:
        if text:
            (self.directory / step).write_text(text)
            if step.endswith(".py"):
                self._run([sys.executable, step])
            return
        typed = re.sub("|".join(PORTS), lambda match: self._ports[match[0]], step)
        words = shlex.split(typed, comments=True)
        if words[0] == "python":
            self._run_ours(words)
        elif words[0] == "curl":
            self._run([*words, "--fail", "--silent", "--show-error"])
        else:
            self._start(words, int(words[words.index("-p" if "-p" in words else "--port") + 1]))

    def _run_ours(self, words: list[str]) -> None:
        words = [sys.executable, *words[1:]]
        if words[3] == "run":
            words += [] if any(word.startswith("run.steps=") for word in words) else [f"run.steps={MANY_STEPS}"]
            for kind in ("nats", "redis"):
                if f"stream_{kind}" in words:
                    port = self._ports["4222" if kind == "nats" else "6379"]
                    words.append(f"stages.stream.transport.url={kind}://127.0.0.1:{port}")
        if "--serve" in words:
            self._start(words, int(self._ports["8787"]))
            until(lambda: self._ready(), self._all_live)
        elif "--follow" in words and "--until-end" not in words:
            self._start(words, None)
        else:
            self._run(words)

    def _ready(self) -> bool:
        url = f"http://127.0.0.1:{self._ports['8787']}/readyz"
        return subprocess.run(["curl", "--fail", "--silent", url], capture_output=True, check=False).returncode == 0

    def _run(self, words: list[str]) -> None:
        done = subprocess.run(
            words, cwd=self.directory, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"

    def _start(self, words: list[str], port: int | None) -> None:
        log = (self.directory / f"log{len(self._beside)}").open("w")
        with log:
            process = subprocess.Popen(words, cwd=self.directory, env=environment(), stdout=log, stderr=log, text=True)
        self._beside.append((shlex.join(words), process))
        if port is not None:
            until(lambda: answers(port), self._all_live)

    def _all_live(self) -> bool:
        return all(process.poll() is None for _, process in self._beside)

    def end(self) -> None:
        """Ctrl-C for all that goes on, the youngest first. Raises where one had ended by itself, or ends with an error."""
        assert self._all_live(), [(words, process.poll()) for words, process in self._beside]
        for words, process in reversed(self._beside):
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT_S) in (0, 1 if "nats-server" in words else 0), words

    def kill(self) -> None:
        for _, process in self._beside:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def typist(tmp_path: Path) -> Iterator[Typist]:
    typist = Typist(tmp_path)
    yield typist
    typist.kill()


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES)
def test_a_page_on_streams_works_as_typed(page: str, typist: Typist) -> None:
    steps = steps_of(page)
    for program in {step.split()[0] for step, text in steps if not text} & set(PROGRAMS):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed; it comes with the Debian package {PROGRAMS[program]}")
    run_job(typist.directory / "runs" / "quickstart", "quickstart", f"run.steps={MANY_STEPS}")
    for step, text in steps:
        typist.type(step, text)
    typist.end()


def test_every_page_on_streams_shows_commands() -> None:
    """Else the walk would walk nowhere."""
    shown = {page: len([step for step, text in steps_of(page) if not text]) for page in PAGES}
    assert all(count >= 6 for count in shown.values()), shown
