"""Readers that hammer a served replica over its socket, and what the trainer was at each step's end."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.models.arrays import dense_arrays
from pipeline.models.digest import digest_of_arrays
from pipeline.replica.client import ReplicaClient
from pipeline.replica.serving.errors import RequestRefused, Unreachable
from pipeline.rows.initial import initial_weights
from pipeline.session.resources import Resources
from tests.e2e.command import finish, start
from tests.e2e.jobs import run_job

Seen = tuple[int, dict[str, bytes], str]
"""Step, rows of the probes by table, digest of the dense weights."""


class Truth:
    """The probes, and what they are at each step's end, of a run that nobody disturbs."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        job = run_job(directory / "plain", config)
        self.steps = int(job.summary["last_step"])
        """The last one."""
        self.probes = {name: np.append(arrays["ids"][::3], [7, -7]) for name, arrays in job.tables().items()}
        self.rows: dict[int, dict[str, bytes]] = {}
        self.dense: dict[int, str] = {}
        run_job(directory / "recorded", config, on_open=self._record)

    def _record(self, resources: Resources) -> None:
        store, specs, model = resources.store, resources.plan.specs, resources.model
        self.rows[0] = {spec.name: initial_weights(spec, self.probes[spec.name]).tobytes() for spec in specs}
        self.dense[0] = digest_of_arrays({})

        def look(step: int, _plan: Any) -> None:
            self.rows[step] = {t: store.fetch_rows(t, ids).weights_nd.tobytes() for t, ids in self.probes.items()}
            self.dense[step] = digest_of_arrays(dense_arrays(model))

        store.on_step(look)

    def assert_is(self, seen: Seen) -> None:
        step, rows, dense = seen
        for table, data in rows.items():
            assert data == self.rows[step][table], f"{table} as answered at step {step} is not the trainer's"
        assert dense in ("", self.dense[step]), f"the dense weights answered at step {step} are not the trainer's"


@dataclass
class Hammer:
    """A reader: pins views and looks up without one, in turn, until it is stopped. ``lives``: what it saw between two failures."""

    path: str
    probes: Mapping[str, Any]
    lives: list[list[Seen]] = field(default_factory=lambda: [[]])
    failures: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _error: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="hammer")

    @property
    def step(self) -> int:
        """The last one seen in this life; 0 before the first."""
        return self.lives[-1][-1][0] if self.lives[-1] else 0

    @property
    def seen(self) -> list[Seen]:
        return [one for life in self.lives for one in life]

    def __enter__(self) -> Hammer:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error:
            raise self._error[0]

    def _run(self) -> None:
        try:
            with ReplicaClient(self.path, timeout_s=60) as client:
                while not self._stop.is_set():
                    self._look(client)
        except BaseException as error:
            self._error.append(error)

    def _look(self, client: ReplicaClient) -> None:
        try:
            with client.view() as view:
                rows = {table: view.lookup(table, ids).tobytes() for table, ids in self.probes.items()}
                self.lives[-1].append((view.step, rows, digest_of_arrays(view.dense())))
            found = client.lookup(self.probes)
            self.lives[-1].append((found.step, {table: one.tobytes() for table, one in found.items()}, ""))
        except Unreachable:
            self.failures += 1
            if self.lives[-1]:
                self.lives.append([])
            self._stop.wait(0.01)
        except RequestRefused:  # no header frame has come yet
            self._stop.wait(0.01)


def assert_consistent(hammer: Hammer, truth: Truth) -> None:
    for life in hammer.lives:
        steps = [step for step, _, _ in life]
        assert steps == sorted(steps), "one server went back"
        for seen in life:
            truth.assert_is(seen)


class Server:
    """A context manager: ``replica RUN --serve``, another process; at the end SIGTERM, which it must follow."""

    def __init__(self, run: Path, socket: Path, *more: str) -> None:
        self._words: tuple[str | Path, ...] = ("replica", run, "--serve", "--socket", socket, *more)
        self._socket = socket
        self._process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        """Of HTTP, as the process says it. Once."""
        assert self._process.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", self._process.stderr.readline())
        assert found is not None
        return int(found[1])

    def lives(self) -> bool:
        return self._process.poll() is None

    def kill_and_restart(self) -> None:
        """SIGKILL; the next one finds the socket of the dead one in its place."""
        assert finish(self._process, signal.SIGKILL).code == -signal.SIGKILL
        assert self._socket.exists()
        with pytest.raises(Unreachable), ReplicaClient(self._socket) as client:
            client.info()
        self.__enter__()

    def __enter__(self) -> Server:
        self._process = start(*self._words)
        return self

    def __exit__(self, *_error: object) -> None:
        ended = finish(self._process, signal.SIGTERM)
        assert ended.code == 0, ended.text


def asked(port: int, path: str) -> tuple[int, str]:
    """Status and body of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
