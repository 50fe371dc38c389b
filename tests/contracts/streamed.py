"""What a stream says is what the trainer had: every row in every frame, for a loop of one's own and for whole runs.

A test class for a transport inherits ``StreamedContract`` and says how to open one (``opener``) and how a job names it (``keys``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import RowStreamer
from pipeline.flow import StageError
from pipeline.replica import Replica
from pipeline.rows.codec import CODECS
from pipeline.session.resources import Resources
from pipeline.session.resume import Resume
from pipeline.store import Expired
from pipeline.stream import find_tail
from pipeline.wire import Transport
from tests.e2e.jobs import run_job
from tests.e2e.test_identities import config as with_identities
from tests.e2e.test_resume import die_at
from tests.stream.oracle import Oracle, check_replica, check_stream

SOON_S = 60.0
"""Long enough that only a replica that will never come to the end lets it pass."""
ITEM: dict[str, Any] = {"dim": 8, "default": 0.25}
USER: dict[str, Any] = {"dim": 3, "init": {"kind": "normal"}, "seed": 5}
COLUMNS = {"shared": (["momentum"], ["identity", "metadata"]), "wide": (["exp_avg", "exp_avg_sq"], ["metadata"])}
"""Of the tables of ``job``: states, and what else a row has."""
SELECTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "one": {"shared": {"enabled": False}},
    "codecs": {"shared": {"codec": "fp16"}, "wide": {"codec": "int8"}},
    "states": {"shared": {"codec": "fp16", "states": True}, "wide": {"states": True}},
    "identities": {"shared": {"identities": True}, "wide": {"codec": "int4", "states": True, "identities": True}},
}
RIDING = {"states": {"momentum": 2}, "identities": 3}


def frames_of(transport: Transport) -> Iterator[bytes]:
    """All that is there, in order."""
    for part in reversed(list(transport.newest_first())):
        yield from part


class Loop:
    """A trainer in plain dictionaries that tells a streamer, and an oracle, what its steps did."""

    def __init__(self, seed: int, riding: bool) -> None:
        self.rng, self.riding, self.oracle = np.random.default_rng(seed), riding, Oracle()
        self.step = 0

    def push(self, streamer: RowStreamer) -> None:
        self.step += 1
        for table, dim in (("item", ITEM["dim"]), ("user", USER["dim"])):
            ids = self.rng.choice(np.arange(-20, 60), size=int(self.rng.integers(0, 25)), replace=False)
            rows_nd = self.rng.standard_normal((len(ids), dim)).astype(np.float32)
            columns: dict[str, Any] = {"weight": rows_nd}
            if self.riding and table == "item":
                columns["momentum"] = self.rng.standard_normal((len(ids), 2)).astype(np.float32)
                columns["identity"] = self.rng.integers(-(2**63), 2**63 - 1, (len(ids), 3))
                streamer.push(table, ids, rows_nd, columns["identity"], {"momentum": columns["momentum"]})
            else:
                streamer.push(table, ids, rows_nd)
            self.oracle.write(self.step, table, ids, columns)
            rows_nd[:] = np.nan  # the streamer has copied them
            if self.step % 5 == 0:
                streamer.delete(table, ids[:4])
                self.oracle.end(self.step, table, ids[:4])
        self.oracle.last_step = self.step
        streamer.end_step(self.step)


class Run:
    """A whole job, watched from inside: its hooks tell the oracle what each step wrote and what it ended."""

    def __init__(self, oracle: Oracle | None = None) -> None:
        self.oracle = oracle or Oracle()

    def watch(self, resources: Resources) -> None:
        store, names = resources.store, [spec.name for spec in resources.plan.specs]

        def after_update(table: str, ids: Any, rows: Any) -> None:
            self.oracle.write(rows.step, table, ids, rows.columns)

        def expired(step: int, gone: Expired) -> None:
            for number, ids in gone.by_table():
                self.oracle.end(step, names[number], ids)

        def ended(step: int, _plan: Any) -> None:
            self.oracle.last_step = step

        store.add_hook("after_update", after_update)
        store.on_expired(expired)
        store.on_step(ended)


def job(**stream: Any) -> dict[str, Any]:
    """Admission and expiry, states, identities and metadata of rows, L1 much smaller than the tables."""
    made = with_identities()
    made["tables"]["shared"] |= {
        "admission": {"after": 2, "default": 0.25},
        "expiry": {"steps": 8, "rows": 40, "score": "uses", "every": 3},
    }
    made["tables"]["wide"] |= {"optimizer": {"kind": "adam", "lr": 0.05}, "expiry": {"steps": 6, "every": 1}}
    made["stages"]["source"]["batches"] = 25
    made["stages"]["stream"] |= stream
    return made


class StreamedLoops:
    """Of loops alone."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Callable[[], Transport]:
        """Returns a new handle on one and the same stream each time."""
        raise NotImplementedError

    @contextmanager
    def follower(self, opener: Callable[[], Transport]) -> Iterator[Replica]:
        """One that has come to the end of the stream."""
        until = time.monotonic() + SOON_S

        def look() -> None:
            assert time.monotonic() < until, f"the replica stands at step {replica.step}"

        with closing(opener()) as transport, Replica(transport) as replica:
            replica.follow(threading.Event(), until_end=True, on_progress=look)
            yield replica

    def check(
        self,
        opener: Callable[[], Transport],
        oracle: Oracle,
        expected: Mapping[str, tuple[str, Sequence[str]]],
        forks: Sequence[Oracle] = (),
    ) -> Any:
        with closing(opener()) as transport:
            seen = check_stream(frames_of(transport), oracle, expected, forks)
        oracle = [oracle, *forks][-1]
        assert seen.last_step == oracle.last_step, "the last step is not there"
        with self.follower(opener) as replica, replica.view() as view:
            check_replica(view, oracle, expected)
        return seen

    def published(self, opener: Callable[[], Transport]) -> int:
        """The step of the last cut."""
        with closing(opener()) as transport:
            tail = find_tail(transport.newest_first())
            return 0 if tail is None else tail.commit.step

    @pytest.mark.parametrize("riding", [False, True])
    @pytest.mark.parametrize("codec", sorted(CODECS))
    def test_every_row_a_loop_pushes_is_streamed_as_it_was(self, opener: Any, codec: str, riding: bool) -> None:
        loop = Loop(3, riding)
        item = {**ITEM, "codec": codec, **(RIDING if riding else {})}
        with (
            closing(opener()) as transport,
            RowStreamer({"item": item, "user": USER}, transport, every=None) as streamer,
        ):
            for number in range(40):
                loop.push(streamer)
                if number % 3 == 0:
                    streamer.cut()
        carries = ["momentum", "identity"] if riding else []
        seen = self.check(opener, loop.oracle, {"item": (codec, carries), "user": ("fp32", [])})
        assert seen.cuts > 10
        assert seen.rows > 300
        assert seen.dead > 20
        assert (seen.bytes_of_columns > 0) == riding

    def test_a_loop_that_goes_on_pushes_behind_what_was_committed(self, opener: Any) -> None:
        loop, tables = Loop(4, False), {"item": ITEM, "user": USER}
        with closing(opener()) as transport:
            streamer = RowStreamer(tables, transport, every=None)
            streamer.open()
            for _ in range(10):
                loop.push(streamer)
            streamer.cut()
        with closing(opener()) as transport, RowStreamer(tables, transport, resume=True, every=None) as streamer:
            assert streamer.committed_step == loop.step
            for _ in range(10):
                loop.push(streamer)
        seen = self.check(opener, loop.oracle, {"item": ("fp32", []), "user": ("fp32", [])})
        assert (seen.last_step, seen.cuts) == (20, 3)


class StreamedContract(StreamedLoops):
    """And of whole runs."""

    @pytest.fixture
    def keys(self, tmp_path: Path) -> Mapping[str, Any]:
        """Options of the stage ``stream`` that name the stream which ``opener`` opens."""
        raise NotImplementedError

    @pytest.mark.parametrize("resident", [False, True], ids=["tiers", "resident"])
    @pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
    def test_every_row_a_run_touches_is_streamed_as_it_was(
        self, tmp_path: Path, opener: Any, keys: Mapping[str, Any], selection: dict[str, Any], resident: bool
    ) -> None:
        """``resident``: all rows lie in L1 and no dense weights ride along, so most cuts are encoded where the rows lie."""
        run = Run()
        config = job(tables=selection, snapshot_every="7 steps", **keys)
        options = ["store.l1_rows=4096", "stages.stream.dense=false"] if resident else []
        made = run_job(tmp_path / "run", config, "stages.stream.every='2 steps'", *options, on_open=run.watch)
        expected = {}
        for name, (states, meta) in COLUMNS.items():
            one = selection.get(name, {})
            riding = (states if one.get("states") else []) + (meta if one.get("identities") else [])
            if one.get("enabled", True):
                expected[name] = (one.get("codec", "fp32"), riding)
        seen = self.check(opener, run.oracle, expected)
        assert made.summary["store"]["expired_rows"] > 20
        assert (made.summary["l1"]["evictions"] == 0) == resident
        assert seen.tables == set(expected)
        assert seen.rows > 100
        assert seen.snapshots > 0
        assert made.summary["unpublished_rows"] == 0

    def test_a_run_that_dies_and_forks_streams_every_row_of_each_life(
        self, tmp_path: Path, opener: Any, keys: Mapping[str, Any]
    ) -> None:
        """Its states ride along: they are part of the proof, and a rewind takes them back."""
        run, expected = Run(), {"shared": ("fp32", ["momentum"]), "wide": ("bf16", ["exp_avg", "exp_avg_sq"])}
        config = job(tables={"shared": {"states": True}, "wide": {"states": True, "codec": "bf16"}}, **keys)
        config["stages"]["source"]["batches"] = 200
        directory, cuts, accept = tmp_path / "run", "stages.stream.every='1 steps'", ("dense_optimizer.lr",)

        def die_when(ready: Callable[[int], bool]) -> Callable[[int], None]:
            return lambda ended: die_at(ended if ended % 5 == 0 and ready(self.published(opener)) else 0)(ended)

        def saved() -> int:
            return Resume.newest(directory).step

        die = die_when(lambda published: saved() > 0 and published > saved())
        with pytest.raises(StageError):
            run_job(directory, config, cuts, "checkpoint.every='7 steps'", on_open=run.watch, on_step=die)
        base, before = saved(), self.published(opener)
        die = die_when(lambda published: published > before)
        with pytest.raises(StageError):
            run_job(directory, config, cuts, on_open=run.watch, on_step=die, resume=True)
        fork = Run(run.oracle.branch(base))
        config["dense_optimizer"]["lr"] = 0.01
        last = f"run.steps={base + 9}"
        third = run_job(directory, config, cuts, last, on_open=fork.watch, resume=True, accept=accept)
        assert third.summary["rewind"]["step"] == base
        assert third.summary["rewind"]["rows"] > 0
        seen = self.check(opener, run.oracle, expected, [fork.oracle])
        assert (seen.rewinds, seen.tables) == (1, set(expected))
        assert seen.bytes_of_columns > 0
