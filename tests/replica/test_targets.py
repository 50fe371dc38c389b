"""One contract for every target: after each cut it holds what the trainer, a plain dict, holds; and the next replica goes on behind it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.replica import BadTarget, OtherTables, Replica, RowsElsewhere, TargetChanged, TargetFailed
from pipeline.replica.targets import outside
from pipeline.wire.frames import START, CutPosition
from tests.replica.own_target import DictTarget, Row
from tests.replica.trainer import DictTrainer, MemoryTransport, Model, column_of
from tests.support.servers import RedisServer

DIMS = {"item": 4, "user": 3}
CARRIES = ("slow", "raw")
Rows = dict[str, dict[int, Row]]


def expected(trainer: DictTrainer, model: Model) -> Rows:
    return {
        name: {
            row_id: (
                weights,
                version,
                {c: column_of(trainer.specs[name].layout.column(c), [row_id], [version]).tobytes() for c in CARRIES},
            )
            for row_id, (weights, version) in rows.items()
        }
        for name, rows in model.items()
    }


class TargetContract:
    """What each target must do; a class below for each says how to make it, and how to look."""

    path: Path | None = None
    target: Any = "memory"

    def look(self, replica: Replica) -> Rows:
        """All rows, as a reader of the target finds them."""
        found: Rows = {}
        with replica.view() as view:
            for table in view.tables:
                ids_n = view.ids(table)
                weights_nd, versions_n, columns = view.row_columns(table, ids_n)
                found[table] = {
                    row_id: (
                        weights_nd[n].tobytes(),
                        int(versions_n[n]),
                        {c: v[n].tobytes() for c, v in columns.items()},
                    )
                    for n, row_id in enumerate(ids_n.tolist())
                }
        return found

    @pytest.fixture(autouse=True)
    def a_stream(self) -> Iterator[None]:
        self.trainer = DictTrainer(DIMS, seed=9, codec="fp16")
        self.trainer.carries = CARRIES
        self.transport = MemoryTransport()
        self.transport.begin(self.trainer.header())
        self.replica: Replica | None = None
        yield
        if self.replica is not None:
            self.replica.close()

    def start(self, **options: Any) -> Replica:
        if self.replica is not None:
            self.replica.close()
        self.replica = Replica(self.transport, path=self.path, target=self.target, commit_every_s=0, **options)  # type: ignore[arg-type]
        return self.replica

    def train(self) -> None:
        trainer = self.trainer
        trainer.dense = {"w": trainer.rng.normal(size=(3, 3))}
        ids = [*trainer.rng.integers(0, 50, 20).tolist(), -1, -(2**63), 2**63 - 1]
        trainer.update({"item": list(dict.fromkeys(ids)), "user": [trainer.step % 4, 7]})
        trainer.forget("item", [*trainer.rng.integers(0, 50, 5).tolist(), -(2**63)])
        self.transport.publish(trainer.cut())

    def check(self) -> None:
        assert self.replica is not None
        self.replica.apply_available()
        assert self.replica.position == self.trainer.previous
        assert self.look(self.replica) == expected(self.trainer, self.trainer.model)

    def test_it_is_the_trainer_after_each_cut_and_after_a_restart(self) -> None:
        self.start()
        for number in range(6):
            self.train()
            self.check()
            if number % 2:
                position = self.trainer.previous
                replica = self.start()
                if self.survives:
                    assert replica.position == position
                    self.train()
                    self.check()
                    assert replica.counters.cuts == 1

    survives = True
    """A restart."""

    def test_snapshot_cuts_and_forks_leave_no_row_that_is_not_the_trainers(self) -> None:
        self.start()
        for _ in range(3):
            self.train()
        self.check()
        self.trainer.forget("item", list(range(30)))
        self.trainer.cut()
        begun = len(self.transport.frames)
        self.transport.publish(self.trainer.snapshot())
        self.transport.trim(begun)
        self.train()
        self.start()
        self.check()
        self.transport.begin(self.trainer.fork_at(CutPosition(1, 2)))
        self.transport.publish(self.trainer.cut(rewind=True))
        self.check()

    def test_it_goes_to_a_retained_cut_and_back(self) -> None:
        replica = self.start()
        for _ in range(3):
            self.train()
        self.check()
        replica.rollback(CutPosition(1, 1))
        assert self.look(replica) == expected(self.trainer, self.trainer.states[CutPosition(1, 1)])
        replica.resume()
        self.check()

    def test_it_holds_the_tables_it_is_asked_for(self) -> None:
        replica = self.start(tables=["user"])
        self.train()
        replica.apply_available()
        assert self.look(replica) == {"user": expected(self.trainer, self.trainer.model)["user"]}
        if self.survives:
            with pytest.raises(OtherTables):
                self.start()


class TestMemory(TargetContract):
    survives = False


class TestMemoryWithADirectory(TargetContract):
    @pytest.fixture(autouse=True)
    def a_directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "replica"


class TestRowlog(TestMemoryWithADirectory):
    target = "rowlog"


class TestOwn(TargetContract):
    target = "tests.replica.own_target:DictTarget"

    @pytest.fixture(autouse=True)
    def empty(self) -> None:
        DictTarget.forget()

    def look(self, replica: Replica) -> Rows:
        del replica
        return {table: dict(rows) for table, rows in DictTarget.rows.items()}

    def test_a_position_and_its_step_come_with_each_cut(self) -> None:
        self.start()
        self.train()
        self.train()
        self.check()
        assert DictTarget.steps == [1, 2]
        assert json.loads(DictTarget.kept[-1])["position"] == [1, 2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running  # type: ignore[misc]


class TestRedis(TargetContract):
    @pytest.fixture(autouse=True)
    def a_server(self, server: RedisServer) -> Iterator[None]:
        import redis

        self.server, self.target = server, f"{server.url}/0?prefix=run1"
        self.client: Any = redis.Redis(port=server.port)
        self.client.flushall()
        self.client.set("run1x:item:12345678", "another's")
        yield
        self.client.close()

    def look(self, replica: Replica) -> Rows:
        """As any client would, by what ``run1:layout`` says."""
        found: Rows = {}
        for table, told in json.loads(self.client.get("run1:layout")).items():
            prefix, widths = f"run1:{table}:".encode(), {"int64": 8, "bfloat16": 2}
            found[table] = {}
            for key in self.client.scan_iter(prefix + b"*"):
                value, at = self.client.get(key), 8 + 4 * told["dim"]
                columns = {}
                for name, dtype, width in told["columns"]:
                    columns[name], at = value[at : at + widths[dtype] * width], at + widths[dtype] * width
                assert at == len(value)
                (row_id,), (version,) = struct.unpack("<q", key[len(prefix) :]), struct.unpack("<q", value[:8])
                found[table][row_id] = (value[8 : 8 + 4 * told["dim"]], version, columns)
        assert replica.position == tuple(json.loads(self.client.get("run1:position"))["position"])
        assert self.client.get("run1x:item:12345678") == b"another's"
        return found

    def test_dense_weights_are_npy_files_of_the_same_cut(self) -> None:
        import io

        self.start()
        self.train()
        self.check()
        assert self.trainer.dense is not None
        found = np.load(io.BytesIO(self.client.hget("run1:dense", "w")))
        assert np.array_equal(found, self.trainer.dense["w"])

    def test_the_last_rows_of_a_cut_come_with_its_position(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What waits for the position is not there before it; what does not wait is."""
        from pipeline.replica.targets import redis_target

        monkeypatch.setattr(redis_target, "CHUNK_BYTES", 500)
        commit, seen = redis_target.RedisTarget.commit, []

        def look(target: Any, *args: Any) -> None:
            seen.append((len(list(self.client.scan_iter(b"run1:item:*"))), self.client.get("run1:position")))
            commit(target, *args)

        monkeypatch.setattr(redis_target.RedisTarget, "commit", look)
        self.start()
        self.train()
        self.check()
        count, position = seen[0]
        assert 0 < count < len(self.trainer.model["item"])
        assert position is None

    def test_a_server_that_comes_back_gets_the_cut_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waits: list[float] = []
        self.start()
        self.train()
        self.check()
        server = self.server

        class Back:
            """Counts the waits; at the second one the server is back."""

            def wait(self, seconds: float) -> bool:
                waits.append(seconds)
                if len(waits) == 2:
                    server.start()
                return False

            def set(self) -> None: ...

        assert self.replica is not None
        monkeypatch.setattr(self.replica._held, "_closed", Back())
        server.kill()
        self.train()
        self.check()
        assert waits == [0.05, 0.1]

    def test_an_answer_that_was_lost_is_not_taken_for_another_replica(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The transaction went through; the connection broke before its answer came."""
        from redis.exceptions import ConnectionError as LostConnection

        from pipeline.replica.targets import redis_target

        self.start()
        self.train()
        self.check()
        send, broken = redis_target.RedisTarget._send, list[int]()

        def break_once(target: Any, commands: list[bytes]) -> None:
            send(target, commands)
            if not broken and commands[-1].endswith(b"EXEC\r\n"):
                broken.append(1)
                raise LostConnection("reset")

        monkeypatch.setattr(redis_target.RedisTarget, "_send", break_once)
        monkeypatch.setattr(outside, "PATIENCE_S", 60)
        self.train()
        self.check()
        assert broken

    @pytest.mark.parametrize("what", ["another replica", "lost data"])
    def test_a_position_that_another_left_is_not_written_over(self, what: str) -> None:
        replica = self.start()
        self.train()
        self.check()
        self.client.set("run1:position", b"{}") if what == "another replica" else self.client.flushall()
        before = {key: self.client.get(key) for key in self.client.keys("run1:item:*")}
        self.train()
        with pytest.raises(Exception, match="another replica writes there too, or it lost its data") as caught:
            replica.apply_available()
        assert isinstance(caught.value.__cause__, TargetChanged)
        assert {key: self.client.get(key) for key in self.client.keys("run1:item:*")} == before

    def test_a_position_that_changes_while_a_cut_is_written_stops_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from pipeline.replica.targets import redis_target

        replica = self.start()
        self.train()
        commit = redis_target.RedisTarget.commit

        def late(target: Any, *args: Any) -> None:
            self.client.set("run1:position", b"theirs")
            commit(target, *args)

        monkeypatch.setattr(redis_target.RedisTarget, "commit", late)
        with pytest.raises(Exception, match="another replica writes there too"):
            replica.apply_available()
        assert self.client.get("run1:position") == b"theirs"

    def test_a_server_that_throws_keys_away_is_refused(self) -> None:
        self.client.config_set("maxmemory", "1gb")
        self.client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(BadTarget, match="set noeviction"):
                self.start()
        finally:
            self.client.config_set("maxmemory-policy", "noeviction")
            self.client.config_set("maxmemory", "0")

    def test_keys_that_no_replica_wrote_are_not_removed(self) -> None:
        self.client.set("run1:item:odd", "theirs")
        replica = self.start()
        self.train()
        self.transport.publish(self.trainer.snapshot())
        replica.apply_available()
        with pytest.raises(Exception, match=r"keys run1:item:.* that no replica wrote") as caught:
            replica.rollback(CutPosition(1, 1))
        assert isinstance(caught.value.__cause__, TargetFailed)
        assert self.client.get("run1:item:odd") == b"theirs"


def test_nothing_is_looked_up_where_rows_lie_elsewhere_and_it_says_what_readers_see() -> None:
    with Replica(MemoryTransport(), target=DictTarget()) as replica:  # type: ignore[arg-type]
        assert replica.notice is not None
        assert "not all rows at one step" in replica.notice
        with pytest.raises(RowsElsewhere, match="they are in dicts"):
            replica.view()
    with Replica(MemoryTransport()) as replica:  # type: ignore[arg-type]
        assert replica.notice is None
        assert replica.position == START


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("memroy", "no target is named 'memroy'"),
        ("tests.nowhere:Target", "No module named 'tests.nowhere'"),
        ("tests.replica.own_target:Nothing", "has no attribute 'Nothing'"),
        ("tests.replica.own_target:NoTarget", "is no Target"),
        ("redis://127.0.0.1:1/0?prefix=a*b", "does not match"),
        ("redis://127.0.0.1:port/0", "not the URL"),
    ],
)
def test_a_target_that_there_is_not_is_told(target: str, told: str) -> None:
    with pytest.raises(BadTarget, match=told):
        Replica(MemoryTransport(), target=target)  # type: ignore[arg-type]


def test_credentials_of_a_server_are_in_no_error() -> None:
    with pytest.raises(Exception, match="does not answer") as caught:
        Replica(MemoryTransport(), target="redis://me:secret@127.0.0.1:1/0")  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
