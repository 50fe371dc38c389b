"""A life of a loop without a store: it pushes, touches and deletes rows, its transport fails at times, it dies and goes on or begins
elsewhere; every frame and a replica in plain dictionaries are held against what it did.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.files import DiskFull
from pipeline.rows.codec import find_codec
from pipeline.rows.version import MAX_STEP
from pipeline.stream import OwnRows, RowStreamer
from tests.stream.dict_replica import DictReplica
from tests.stream.list_transport import ListTransport
from tests.stream.oracle import Oracle, Seen, check_stream

TABLES: dict[str, Any] = {
    "item": {"dim": 3, "states": {"momentum": 2}, "identities": 1, "codec": "fp16"},
    "user": {"dim": 2, "default": 0.5},
}
EXPECTED = {"item": ("fp16", ["momentum", "identity"]), "user": ("fp32", list[str]())}
DTYPES = {"weight": np.float32, "momentum": np.float32, "identity": np.int64}
WIDTHS = {"weight": {"item": 3, "user": 2}, "momentum": {"item": 2}}


class OwnLoop:
    """Rows live in ``rows``; a table is pushed in one step and touched in another."""

    def __init__(self, seed: int) -> None:
        self.rng, self.oracles = np.random.default_rng(seed), [Oracle()]
        self.transport, self.step = ListTransport(), 0
        self.rows: dict[tuple[str, int], dict[str, Any]] = {}
        self.open()

    def open(self) -> None:
        self.streamer = RowStreamer(TABLES, self.transport, rows=self.read, resume=True, every=None)
        self.streamer.open()

    @property
    def oracle(self) -> Oracle:
        """Of the life since the last restart."""
        return self.oracles[-1]

    def read(self, table: str, ids: Any) -> OwnRows:
        columns = self.columns(table, ids)
        return OwnRows(columns.pop("weight"), identities=columns.pop("identity", None), states=columns)

    def columns(self, table: str, ids: Any) -> dict[str, Any]:
        missing = [row_id for row_id in ids.tolist() if (table, row_id) not in self.rows]
        assert not missing, f"{table}: rows {missing} are asked for and there are none"
        found = [self.rows[table, int(row_id)] for row_id in ids]
        return {name: np.stack([row[name] for row in found]) for name in found[0]}

    def write(self, table: str, row_id: int) -> None:
        row: dict[str, Any] = {
            name: self.rng.standard_normal(widths[table]).astype(np.float32)
            for name, widths in WIDTHS.items()
            if table in widths
        }
        if table == "item":
            row["identity"] = self.rng.integers(-(2**63), 2**63 - 1, 1)
        self.rows[table, row_id] = row

    def train(self) -> None:
        self.step += 1
        for table in TABLES:
            ids = self.rng.choice(30, size=int(self.rng.integers(0, 8)), replace=False)
            for row_id in ids.tolist():
                self.write(table, row_id)
            if len(ids):
                self.tell(table, ids)
                self.oracle.write(self.step, table, ids, self.columns(table, ids))
            held = [row_id for name, row_id in self.rows if name == table]
            gone = [row_id for row_id in held if self.rng.random() < 0.05]
            for row_id in gone:
                del self.rows[table, row_id]
            self.streamer.delete(table, gone)
            self.oracle.end(self.step, table, gone)
        self.oracle.last_step = self.step
        self.streamer.end_step(self.step)

    def tell(self, table: str, ids: Any) -> None:
        if self.rng.random() < 0.3:
            self.streamer.touch(table, ids)
            return
        columns = self.columns(table, ids)
        old = {name: np.zeros_like(values) for name, values in columns.items()}  # overwritten by the second call
        for told in (old, columns):
            given = dict(told)
            self.streamer.push(table, ids, given.pop("weight"), given.pop("identity", None), given)

    def cut(self) -> None:
        if self.rng.random() < 0.3:
            self.transport.fails = DiskFull("somewhere", 100)
        try:
            self.streamer.cut()
        except DiskFull:
            return

    def die(self) -> None:
        """What is in no cut is lost with it. Then the loop goes on from the last cut, or from before it, with other rows."""
        at = self.streamer.committed_step
        self.rows, before = {}, self.oracle
        self.open()
        if self.rng.random() < 0.5:
            before.forget_behind(at)
            for table in TABLES:
                for row_id, (_, row) in before.held(table, at).items():
                    self.rows[table, row_id] = {
                        name: np.frombuffer(data, dtype=DTYPES[name]) for name, data in row.items()
                    }
        else:
            at = max(at - 2, 0)
            self.oracles.append(Oracle())
            for table in TABLES:
                ids = np.array([row_id for row_id in before.held(table, at) if self.rng.random() < 0.8], dtype=np.int64)
                for row_id in ids.tolist():
                    self.write(table, row_id)
                if len(ids):
                    self.tell(table, ids)
                    self.oracle.write(at, table, ids, self.columns(table, ids))
                    self.streamer.delete(table, ids[:1])
                    self.oracle.end(at, table, ids[:1])
                    del self.rows[table, int(ids[0])]
            self.streamer.restart(at)
        self.step = self.oracle.last_step = at


def loop_and_check(seed: int) -> Seen:
    """Raises AssertionError where a frame, or the replica, is not what the loop had."""
    loop = OwnLoop(seed)
    for number in range(24):
        loop.train()
        if loop.rng.random() < 0.5:
            loop.cut()
        if number % 8 == 7:
            loop.die()
    loop.train()
    loop.streamer.finish()
    first, *forks = loop.oracles
    frames = loop.transport.frames
    seen = check_stream(frames, first, EXPECTED, forks)
    replica = DictReplica()
    for data in frames:
        replica.feed(data)
    for table, (name, _) in EXPECTED.items():
        codec, rows = find_codec(name), loop.oracle.held(table, loop.step)
        assert replica.tables[table].keys() == rows.keys()
        for row_id, (step, row) in rows.items():
            weights, version = replica.tables[table][row_id]
            encoded = codec.encode(np.frombuffer(row["weight"], dtype=np.float32)[None])
            assert weights == codec.decode(encoded, TABLES[table]["dim"]).tobytes()
            assert version & MAX_STEP == step
    return seen
