"""A broker for a benchmark, on a free port of this machine, its data in a directory that goes with it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 20.0
ABSENT = "absent: nats-server is not installed (apt-get install nats-server)"


@contextmanager
def jetstream(directory: Path) -> Iterator[str | None]:
    """URL of a NATS server with JetStream on disk; None where the program is not installed."""
    program = shutil.which("nats-server")
    if program is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "-js", "-sd", str(directory), "-a", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(server, port)
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    """Until it takes connections."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nats-server takes no connection on port {port}; exit code {server.poll()}")
