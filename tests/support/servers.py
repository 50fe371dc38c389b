"""Brokers for tests: real servers on free loopback ports, each with a directory of its own, to be killed and restarted at will."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

UP_S = 30.0
"""Long enough that only a server that will never come up lets it pass."""
ENDED_S = 20.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server:
    """A server process. ``start`` returns when it answers; it keeps its port and its data over restarts."""

    program = ""
    package = ""
    scheme = ""

    def __init__(self, directory: Path, *arguments: str) -> None:
        """``arguments``: further ones for the program."""
        if shutil.which(self.program) is None:
            pytest.skip(f"{self.program} is not installed; it comes with the Debian package {self.package}")
        self.directory, self.data = directory, directory / "data"
        self.arguments = list(arguments)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self, connection: socket.socket) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        assert self._process is None, "it runs already"
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([*self.command(), *self.arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + UP_S
        while not self._is_up():
            assert self._process.poll() is None, f"{self.program} ended at once: {self.log}"
            assert time.monotonic() < deadline, f"{self.program} does not come up: {self.log}"
            time.sleep(0.01)

    def _is_up(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                return self.answers(connection)
        except OSError:
            return False

    def stop(self) -> None:
        """As an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It does nothing any more; connections stay."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self, *, keep_data: bool = True, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._end(how)
        if not keep_data:
            self.lose_data()
        self.start()

    def lose_data(self) -> None:
        """While it is down: its disk is another one."""
        shutil.rmtree(self.data, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(ENDED_S)
        finally:
            process.kill()
            process.wait()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class NatsServer(Server):
    """JetStream with files. Configuration beyond the command line: ``configure``."""

    program, package, scheme = "nats-server", "nats-server", "nats"

    def configure(self, text: str) -> None:
        """Before ``start``: lines of a configuration file."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "nats.conf").write_text(text)

    def command(self) -> list[str]:
        given = self.directory / "nats.conf"
        config = ["-c", str(given)] if given.exists() else []
        return [self.program, "-js", "-sd", str(self.data), "-a", "127.0.0.1", "-p", str(self.port), *config]

    def answers(self, connection: socket.socket) -> bool:
        return connection.recv(4096).startswith(b"INFO") and "Server is ready" in self.log.rpartition("Starting")[2]


class RedisServer(Server):
    """Redis with an append-only file."""

    program, package, scheme = "redis-server", "redis-server", "redis"

    def command(self) -> list[str]:
        bound = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.data), "--save", ""]
        return [self.program, *bound, "--appendonly", "yes"]

    def answers(self, connection: socket.socket) -> bool:
        connection.sendall(b"PING\r\n")
        reply = connection.recv(4096)
        return reply.startswith((b"+PONG", b"-NOAUTH"))


SERVERS: dict[str, type[Server]] = {"nats": NatsServer, "redis": RedisServer}
"""By the kind of transport."""
