"""Expiry in whole runs: the same bits wherever rows lie and however often it crashed, and a replica of just the rows that are there."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.flow import StageError
from pipeline.replica import Replica
from pipeline.session.resume import Resume
from pipeline.store import ExpiryRule
from stages.items import RawBatch
from tests.e2e.followed import assert_replica_equals
from tests.e2e.held import held_by, trained
from tests.e2e.jobs import RAGGED, Job, assert_same_bits, run_job
from tests.e2e.ragged import RaggedOptions, make_batch
from tests.e2e.test_fork import TRIMMED
from tests.e2e.test_resume import DISK, EVERY, PACE_S, die_at
from tests.store.expiry_oracle import PlainUses

BATCHES, AFTER = 60, 2
SHARED, WIDE = ExpiryRule(8, 40, "uses", 3), ExpiryRule(6, None, "last_use", 1)
CUTS = "stages.stream.every='1 steps'"


def config() -> dict[str, Any]:
    made = copy.deepcopy(RAGGED)
    made["tables"]["shared"] |= {
        "admission": {"after": AFTER, "default": 0.25},
        "expiry": {"steps": SHARED.steps, "rows": SHARED.rows, "score": SHARED.score, "every": SHARED.every},
    }
    made["tables"]["wide"]["expiry"] = {"steps": WIDE.steps, "every": WIDE.every}
    made["stages"]["source"]["batches"] = BATCHES
    return made


@cache
def held_at() -> list[dict[str, set[int]]]:
    """From the source alone: the ids of each table that have rows when each step has ended, step 0 first."""
    options = RaggedOptions(features=["a", "b", "wide"], batches=BATCHES)
    shared, wide, seen = PlainUses(SHARED), PlainUses(WIDE), Counter[int]()
    held: list[dict[str, set[int]]] = [{"shared": set(), "wide": set()}]
    for step in range(1, BATCHES + 1):
        batch: RawBatch = make_batch(options, step - 1)
        if batch.num_samples:
            ids = [*batch.features["a"].ids_n.tolist(), *batch.features["b"].ids_n.tolist()]
            for ended in shared.step(step, [i for i in ids if seen[i] >= AFTER]):
                ids = [i for i in ids if i != ended]
                del seen[ended]
            seen.update(ids)
            wide.step(step, batch.features["wide"].ids_n.tolist())
        held.append({"shared": set(shared.last), "wide": set(wide.last)})
    return held


def ids_of(rows: dict[str, Any]) -> dict[str, set[int]]:
    return {table: set(of_table) for table, of_table in rows.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    everything = ["store.l1_rows=4096", "stages.prefetch.lookahead=1"]
    return run_job(tmp_path_factory.mktemp("expiry") / "whole", config(), *everything)


def test_just_the_rows_that_have_not_ended_are_there(whole: Job) -> None:
    assert ids_of(trained(whole)) == held_at()[-1]
    assert_replica_equals(whole)
    figures = whole.summary["store"]["expiry"]
    assert figures["shared"]["rows"] == len(held_at()[-1]["shared"])
    assert figures["shared"]["expired"] + figures["wide"]["expired"] == whole.summary["store"]["expired_rows"] > 100
    assert whole.summary["tombstones"] > 0


@pytest.mark.parametrize(("lookahead", "more"), [(1, ()), (8, ()), (8, DISK), (8, (*DISK, "store.dram_bytes=40000"))])
def test_l1_lookahead_and_tiers_change_no_bit(tmp_path: Path, whole: Job, lookahead: int, more: Sequence[str]) -> None:
    l1_rows = f"store.l1_rows={whole.least_l1() + (lookahead - 1) * 4}"
    job = run_job(tmp_path / "run", config(), l1_rows, f"stages.prefetch.lookahead={lookahead}", *more)
    assert job.summary["l1"]["evictions"] > 0
    assert_same_bits(whole, job)
    for part in ("admission", "expiry"):
        assert ids_of(job.summary["store"][part]) == ids_of(whole.summary["store"][part])
    assert_replica_equals(job)


def test_a_replica_has_just_the_rows_of_its_step_all_the_time(tmp_path: Path) -> None:
    replica, steps = None, set()
    directory = tmp_path / "run"

    def look(_step: int) -> None:
        nonlocal replica
        replica = replica or Replica(str(directory / "stream"))
        time.sleep(PACE_S)  # cuts come in between
        replica.apply_available()
        steps.add(replica.step)
        assert ids_of(held_by(replica)) == held_at()[replica.step], f"step {replica.step}"

    run_job(directory, config(), CUTS, "stages.prefetch.lookahead=8", on_step=look)
    assert replica is not None
    replica.close()
    assert len(steps) > 3, "one step of the replica or two show little"


def test_eval_and_fetch_are_no_uses(tmp_path: Path, whole: Job) -> None:
    """Rows that are read at every step, and by every eval, end when they would have ended."""
    made, everything = config(), sorted(set().union(*(held["shared"] | held["wide"] for held in held_at())))
    stream = made["stages"].pop("stream")
    made["stages"] |= {"eval": {"every": 3, "source": {**made["stages"]["source"], "batches": 4}}, "stream": stream}

    def watch(resources: Any) -> None:
        def fetch(step: int, _plan: Any) -> None:
            for table, held in held_at()[step].items():
                rows = resources.store.fetch_rows(table, everything)
                assert set(rows.ids_n[rows.updated_n].tolist()) == held, f"step {step}"

        resources.store.on_step(fetch)

    job = run_job(tmp_path / "run", made, "stages.prefetch.lookahead=8", on_open=watch)
    assert len(job.summary["evals"]) > 10
    assert_same_bits(whole, job)
    assert job.summary["store"]["expiry"] == whole.summary["store"]["expiry"]


@pytest.mark.parametrize("more", [(), DISK], ids=["memory", "disk"])
def test_a_crashed_run_goes_on_with_the_uses_of_its_checkpoint(tmp_path: Path, whole: Job, more: Sequence[str]) -> None:
    ahead = ["stages.prefetch.lookahead=8", EVERY, *more]
    for attempt, step in enumerate((23, 41)):
        with pytest.raises((StageError, ExceptionGroup)):
            run_job(tmp_path / "run", config(), *ahead, on_step=die_at(step), resume=attempt > 0)
    job = run_job(tmp_path / "run", config(), *ahead, resume=True)
    assert_same_bits(whole, job)
    assert_replica_equals(job)
    assert job.summary["store"]["expiry"] == whole.summary["store"]["expiry"]


@pytest.mark.parametrize("more", [(), DISK], ids=["memory", "disk"])
def test_rows_that_ended_while_nothing_was_streamed_are_gone_from_replicas_too(
    tmp_path: Path, whole: Job, more: Sequence[str]
) -> None:
    run_job(tmp_path / "run", config(), "run.steps=20", *more)
    replica = Replica(str(tmp_path / "run" / "stream"))
    replica.apply_available()
    assert any(held_at()[20][table] - held_at()[40][table] for table in held_at()[0])
    run_job(tmp_path / "run", config(), "run.steps=40", "stages.stream.enabled=false", *more, resume=True)
    job = run_job(tmp_path / "run", config(), *more, resume=True)
    assert_same_bits(whole, job)
    replica.apply_available()
    assert held_by(replica) == trained(job)
    replica.close()


@pytest.mark.parametrize("stream", [(), TRIMMED], ids=["whole stream", "trimmed stream"])
def test_a_fork_brings_back_rows_that_had_ended_since(tmp_path: Path, stream: Sequence[str]) -> None:
    directory = tmp_path / "run"
    with pytest.raises((StageError, ExceptionGroup)):
        run_job(directory, config(), "checkpoint.every='20 steps'", CUTS, *stream, on_step=die_at(52))
    replica = Replica(str(directory / "stream"))
    replica.apply_available()
    begins = Resume.newest(directory).step
    assert 0 < begins < replica.step - 4
    before, came_back = held_by(replica), list[set[int]]()

    def look(_ended: int) -> None:
        replica.apply_available()
        if not came_back:
            came_back.append(held_at()[begins]["shared"] - ids_of(before)["shared"])
            assert ids_of(held_by(replica)) == held_at()[begins]

    other = config()
    other["dense_optimizer"]["lr"] = 0.04
    job = run_job(directory, other, *stream, on_step=look, resume=True, accept=("dense_optimizer.lr",))
    assert came_back[0]
    replica.apply_available()
    assert held_by(replica) == trained(job)
    replica.close()
    assert ids_of(trained(job)) == held_at()[-1]
