"""SIGKILL at moments nobody chose: each resume begins at the newest checkpoint, and the end is that of a run that lived."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import yaml

from pipeline.replica import Replica
from pipeline.rows.version import MAX_STEP
from pipeline.session.resume import Resume
from tests.e2e.command import finish, here, start
from tests.e2e.patience import until
from tests.e2e.small import config_file, lines, text

LONG = 100


def job(
    directory: Path,
    steps: int,
    *,
    disk: bool,
    special: bool,
    shards: int = 1,
    seldom: bool = False,
    budget: str | None = None,
) -> Path:
    """``special``: one table in 16 bits, rounded by chance, the other with an admission; rows of both expire. ``seldom``: most users come
    in one step and never again. ``budget``: of a stream with best effort.
    """
    log = directory / "log.csv"
    rows = lines(16 * steps)
    if seldom:
        rows = [f"{1000 + number // 2},{row.split(',', 1)[1]}" for number, row in enumerate(rows)]
    log.write_text(text(rows))
    config = config_file(directory, log)
    tree = yaml.safe_load(config.read_text())
    tree["checkpoint"] = {"every": "30 steps"}
    tree["replica"] = {"embedded": False}
    source = {"source": tree["stages"].pop("source")}
    tree["stages"] = {**source, "paced": {"use": "tests.e2e.paced:Paced"}, **tree["stages"]}
    tree["stages"]["stream"]["shards"] = shards
    if budget is not None:
        tree["stages"]["stream"] |= {"freshness": "best_effort", "budget": budget, "max_age": "60s", "every": "1 step"}
    if disk:
        tree["store"] = {"l1_rows": 80, "ssd": {"segment_bytes": 4096, "extent_bytes": 4096}}
    if special:
        tree["tables"]["user"] |= {"optimizer": {"kind": "adam", "lr": 0.1}, "weights": "fp16", "states": "bf16"}
        tree["tables"]["user"]["expiry"] = {"rows": 20, "score": "uses", "every": 7}
        tree["tables"]["item"] |= {"admission": {"after": 3}, "expiry": {"steps": 25, "every": 5}}
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    return config


def kill_and_resume(config: Path, run: Path, stride: int, kills: int, rng: random.Random) -> list[int]:
    """Returns the steps that the resumes began at. A replica follows all of it. ``stride``: steps from one kill to the next, at most,
    but for those that a process makes while it is being noticed.
    """
    began: list[int] = []
    landed = Counter[str]()
    replica = Replica(str(run / "stream"))

    def shows(step: int) -> bool:
        before = replica.step
        replica.apply_available()
        assert replica.step >= before, "a replica went back"
        return replica.step >= step

    def meets(what: Work, at_work: Callable[[], bool]) -> bool:
        found = at_work()
        landed[what] += found
        return found

    def run_and_kill(kill: int) -> int:
        process = start("run", config, *(["--resume"] if kill else []))

        def ended() -> bool:
            return process.poll() is not None

        target = replica.step + rng.randrange(1, stride)
        if kill % 2:  # early: while it starts, loads, or computes again what was published
            until(lambda: is_of_generation(run, kill + 1) or ended())
        elif kill % 4 == 2:  # in the middle of a checkpoint, or of compaction, if one comes so soon
            what: Work = "checkpoint" if kill % 8 == 2 else "removal"
            at_work = watch_work(run, what)
            until(lambda: meets(what, at_work) or shows(target) or ended(), pause_s=0.0005)
        else:
            until(lambda: shows(target) or ended())
        outcome = finish(process, signal.SIGKILL)
        assert outcome.code in (0, -signal.SIGKILL), outcome.text
        began.append(Resume.newest(run).step)
        return outcome.code

    try:
        for kill in range(kills):
            if run_and_kill(kill) == 0:
                assert kills < LONG, f"the run ended before kill {kill}"
                return began
        outcome = finish(start("run", config, "--resume"))
        assert outcome.code == 0, outcome.text
        shows(0)
        assert replica.step == json.loads((run / "summary.json").read_text())["last_step"]
        wanted: tuple[Work, ...] = ("checkpoint", "removal") if (run / "ssd").exists() else ("checkpoint",)
        assert kills < LONG or all(landed[what] for what in wanted), f"kills in the middle of work: {landed}"
    finally:
        replica.close()
    return began


Work = Literal["checkpoint", "removal"]


def watch_work(run: Path, what: Work) -> Callable[[], bool]:
    """Says when a checkpoint is being written, or when a segment that was emptied, or that no checkpoint needs any more, has just been
    removed: by a process that has begun segments of its own, so not by one that opens what another left.
    """
    seen: set[str] = set()
    known = {path.name for path in (run / "ssd").glob("*.seg")}

    def names(directory: Path) -> set[str]:
        return {entry.name for entry in os.scandir(directory)} if directory.exists() else set()

    def now() -> bool:
        if what == "checkpoint":
            return any(name.startswith(".new-step") for name in names(run / "checkpoints"))
        here = {name for name in names(run / "ssd") if name.endswith(".seg")}
        gone = bool(seen - here)
        if here - known:
            seen.update(here)
        return gone

    return now


def is_of_generation(run: Path, generation: int) -> bool:
    described = run / "run.json"
    return described.exists() and int(json.loads(described.read_text())["generation"]) >= generation


def assert_same_run(killed: Path, whole: Path, out: Path) -> None:
    for table in ("user", "item"):
        exports: list[dict[str, np.ndarray[Any, Any]]] = []
        for run, command in ((killed, "export"), (whole, "export"), (killed, "replica")):
            target = out / f"{len(exports)}.npz"
            flag = "--out" if command == "export" else "--export"
            assert here(command, run, "--table", table, flag, target).code == 0
            with np.load(target) as arrays:
                exports.append({name: arrays[name] for name in ("ids", "weights", "version")})
                exports[-1]["weights"] = exports[-1]["weights"].astype(np.float32)  # replicas answer in it
        assert len(exports[0]["ids"]) > 10
        for other in exports[1:]:
            assert np.array_equal(exports[0]["ids"], other["ids"])
            assert exports[0]["weights"].tobytes() == other["weights"].tobytes()
            assert np.array_equal(exports[0]["version"][:, 1], other["version"][:, 1])
    digests = [json.loads((run / "summary.json").read_text())["dense_digest"] for run in (killed, whole)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    "special", [pytest.param(False, marks=pytest.mark.long), True], ids=["plain", "16 bits, admission, expiry"]
)
def test_killed_again_and_again(tmp_path: Path, special: bool) -> None:
    _killed(tmp_path, steps=200, stride=200, kills=2, disk=True, special=special)


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.long)])
def test_killed_with_a_stream_in_shards(tmp_path: Path, kills: int) -> None:
    """The process dies with some shards behind others."""
    _killed(tmp_path, steps=60 * kills, stride=40, kills=kills, disk=False, special=False, shards=3)


@pytest.mark.parametrize(
    ("kills", "special"),
    [(2, False), pytest.param(2, True, marks=pytest.mark.long), pytest.param(12, True, marks=pytest.mark.long)],
)
def test_killed_while_rows_wait_for_a_budget(tmp_path: Path, kills: int, special: bool) -> None:
    """No process knows what the one before it left behind; max_age is longer than the run, so it sends that at its end."""
    _killed(tmp_path, steps=60 * kills, stride=40, kills=kills, disk=False, special=special, shards=2, budget="4kB/s")
    summary = json.loads((tmp_path / "killed" / "run" / "summary.json").read_text())
    assert summary["best_effort"]["unsent_rows"] == 0


@pytest.mark.long
@pytest.mark.parametrize("special", [False, True], ids=["plain", "16 bits, admission, expiry"])
@pytest.mark.parametrize("disk", [False, True], ids=["memory", "disk"])
def test_killed_a_hundred_times(tmp_path: Path, disk: bool, special: bool) -> None:
    began = _killed(tmp_path, steps=5000, stride=8, kills=LONG, disk=disk, special=special)
    assert len(began) == LONG
    assert sum(step > 0 for step in began) >= len(began) // 2


def _killed(
    tmp_path: Path,
    *,
    steps: int,
    stride: int,
    kills: int,
    disk: bool,
    special: bool,
    shards: int = 1,
    budget: str | None = None,
) -> list[int]:
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    seldom = budget is not None
    assert here("run", job(tmp_path / "whole", steps, disk=False, special=special, seldom=seldom)).code == 0
    config = job(tmp_path / "killed", steps, disk=disk, special=special, shards=shards, seldom=seldom, budget=budget)
    began = kill_and_resume(config, tmp_path / "killed" / "run", stride, kills, random.Random())
    assert began == sorted(began), "each begins at the newest checkpoint"
    assert_same_run(tmp_path / "killed" / "run", tmp_path / "whole" / "run", tmp_path)
    return began


@pytest.mark.long
def test_a_fork_of_a_run_that_was_killed_while_rows_waited_takes_replicas_to_all_its_rows(tmp_path: Path) -> None:
    config, run = job(tmp_path, 150, disk=False, special=False, seldom=True, budget="4kB/s"), tmp_path / "run"
    process = start("run", config)
    with Replica(str(run / "stream")) as replica:

        def is_behind() -> bool:
            replica.apply_available()
            return replica.step > 70 and (replica.lag.unsent or 0) > 50

        until(is_behind, lambda: process.poll() is None)
        assert finish(process, signal.SIGKILL).code == -signal.SIGKILL
        forked = here("run", config, "--resume", "--accept", "dense_optimizer.lr", "dense_optimizer.lr=0.5")
        assert forked.code == 0, forked.text
        assert "rewind" in json.loads((run / "summary.json").read_text())
        replica.apply_available()
        assert replica.ended
        for table in ("user", "item"):
            out = tmp_path / f"{table}.npz"
            assert here("export", run, "--table", table, "--out", out).code == 0
            with np.load(out) as rows, replica.view() as view:
                weights_nd, versions_n = view.lookup_versions(table, rows["ids"])
                assert np.array_equal(view.ids(table), rows["ids"])
                assert weights_nd.tobytes() == rows["weights"].tobytes()
                assert np.array_equal(versions_n & MAX_STEP, rows["version"][:, 1])
