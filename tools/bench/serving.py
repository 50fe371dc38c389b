"""serving: rows looked up in a replica, in its own process and over the socket of `replica --serve`, the same ids in turn.

A stream of one table (dim 64, fp16) is written and served by a process of its own; this one holds a replica of it too. Hot rows: ids
are drawn from a few that fit the processor's cache. One client, one connection; `sent ahead`: requests do not wait for answers.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.replica import Replica
from pipeline.replica.client import ReplicaClient
from pipeline.replica.serving.errors import RequestRefused, Unreachable
from pipeline.session import environment
from pipeline.stream import RowStreamer, StreamerOptions, StreamIdentity
from pipeline.wire import FileTransport
from tools.bench.encode import DIM, TABLE, ArraySource, _cut
from tools.bench.report import BenchRow

NAME = "serving"
HELP = "rows looked up in a replica: in its process, and over the socket of replica --serve"
GOAL_ROWS_PER_S = 10_000_000
ROWS, HOT = {True: 50_000, False: 1_000_000}, 4096
SIZES = (8192, 256, 1)
ROUNDS, SECONDS = {True: 3, False: 9}, {True: 0.05, False: 0.4}
START_S = 120.0


def run(quick: bool) -> list[BenchRow]:
    environment.keep_freed_memory()
    with tempfile.TemporaryDirectory() as directory:
        _write(directory, ROWS[quick])
        path = os.path.join(directory, "replica.sock")
        with Replica(directory) as replica, _served(directory, path), ReplicaClient(path, timeout_s=60) as client:
            replica.apply_available()
            _wait_for(client, replica.step)
            return [row for size in SIZES for row in _measure(replica, client, size, quick)]


def _measure(replica: Replica, client: ReplicaClient, size: int, quick: bool) -> Iterator[BenchRow]:
    ids = np.random.default_rng(3).integers(0, HOT, (64, size))
    with replica.view() as view:
        out_nd = np.empty((size, DIM), dtype=np.float32)
        if view.lookup(TABLE, ids[0]).tobytes() != client.lookup({TABLE: ids[0]})[TABLE].tobytes():
            raise RuntimeError("the rows over the socket are not those of the replica in this process")
        sides: dict[str, Callable[[], Any]] = {
            "in process": lambda: [view.lookup(TABLE, some, out_nd) for some in ids],
            "over the socket": lambda: [client.lookup({TABLE: some}) for some in ids],
            "over the socket, sent ahead": lambda: [None for _ in client.lookups({TABLE: some} for some in ids)],
        }
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(ROUNDS[quick]):  # in turn: what else runs on the machine hits all alike
            for name, side in sides.items():
                speeds[name].append(_rows_per_s(side, ids.size, SECONDS[quick]))
    for name, found in speeds.items():
        per_s = statistics.median(found)
        goal = name == "in process" and size == max(SIZES)
        yield BenchRow(
            bench=NAME,
            what=f"{size} hot rows a lookup, dim {DIM}, {name}",
            measured=f"{per_s / 1e6:.3g} M rows/s ({min(found) / 1e6:.3g} to {max(found) / 1e6:.3g}), {size / per_s * 1e6:.0f} us a lookup",
            goal=f">= {GOAL_ROWS_PER_S / 1e6:.0f} M rows/s" if goal else "-",
            met=per_s >= GOAL_ROWS_PER_S if goal else None,
            knobs={"rows": replica.num_rows, "hot_rows": HOT, "clients": 1},
        )


def _rows_per_s(side: Callable[[], Any], rows: int, seconds: float) -> float:
    began, count = time.perf_counter(), 0
    while True:
        side()
        count += rows
        took = time.perf_counter() - began
        if took >= seconds:
            return count / took


def _write(directory: str, num_rows: int) -> None:
    source = ArraySource(num_rows, "fp16")
    transport = FileTransport(directory)
    streamer = RowStreamer(source, transport, StreamIdentity("bench", "bench", 1), StreamerOptions())
    streamer.open()
    _cut(source, streamer, np.arange(num_rows))
    transport.close()


@contextmanager
def _served(directory: str, path: str) -> Iterator[None]:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "pipeline", "replica", directory, "--serve", "--socket", path]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def _wait_for(client: ReplicaClient, step: int) -> None:
    pause, deadline = threading.Event(), time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if client.lookup({TABLE: [0]}).step == step:
                return
        except (Unreachable, RequestRefused):
            pass
        pause.wait(0.05)
    raise RuntimeError(f"the served replica did not come to step {step} within {START_S:g} s")
