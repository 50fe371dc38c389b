"""A trainer made of dicts, a replica of its stream, and a server of that replica on a real socket."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from pipeline.replica import Replica
from pipeline.replica.client import ReplicaClient
from pipeline.replica.serving.lookup_server import LookupServer, ServerOptions
from pipeline.replica.serving.protocol import Code
from tests.replica.trainer import DictTrainer, MemoryTransport

DIMS = {"item": 4, "user": 3}


class Counted:
    """What the server says it did."""

    def __init__(self) -> None:
        self.rows = 0
        self.codes: list[Code] = []

    def looked_up(self, rows: int, seconds: float) -> None:
        assert seconds >= 0
        self.rows += rows

    def refused(self, code: Code) -> None:
        self.codes.append(code)


class Served:
    """A context manager; ``advance`` makes the trainer go on and the replica follow."""

    def __init__(self, directory: Path, options: ServerOptions | None = None, *, pinned_bytes: int = 1 << 20) -> None:
        self.trainer = DictTrainer(DIMS, seed=5)
        self.transport = MemoryTransport()
        self.transport.begin(self.trainer.header())
        self.replica = Replica(self.transport, pinned_bytes=pinned_bytes)  # type: ignore[arg-type]
        self.replica.apply_available()
        self.counted = Counted()
        self.path = str(directory / "replica.sock")
        self.server = LookupServer(self.replica, self.path, self.counted, options or ServerOptions())

    def advance(self, *, rows: int = 20) -> None:
        trainer = self.trainer
        trainer.dense = {"w": trainer.rng.normal(size=(3, 3)).astype(np.float32), "b": np.zeros(0, dtype=np.int64)}
        trainer.update({"item": list(range(rows)), "user": [1, 2, -(2**63)]})
        self.transport.publish(trainer.cut())
        self.replica.apply_available()

    def client(self, timeout_s: float = 60.0) -> ReplicaClient:
        return ReplicaClient(self.path, timeout_s=timeout_s)

    def __enter__(self) -> Served:
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.close()
        self.replica.close()
