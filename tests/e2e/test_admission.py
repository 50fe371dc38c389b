"""Admission in whole runs: the same bits wherever rows lie and however often it crashed, and a replica of just these rows."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.flow import StageError
from pipeline.replica import Replica
from pipeline.store.admission import ID_BYTES, LEAST_BYTES
from stages.eval import pool_snapshot
from tests.e2e.command import here
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, Job, assert_same_bits, run_job
from tests.e2e.ragged import RaggedOptions, make_batch

AFTER, DEFAULT = 4, 0.25
BATCHES = 60


def config(**admission: Any) -> dict[str, Any]:
    made = copy.deepcopy(RAGGED)
    made["tables"]["shared"]["admission"] = {"after": AFTER, "default": DEFAULT, **admission}
    made["stages"]["source"]["batches"] = BATCHES
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    everything = ["store.l1_rows=4096", "stages.prefetch.lookahead=1"]
    return run_job(tmp_path_factory.mktemp("admission") / "whole", config(), *everything)


def ids_with_rows() -> tuple[set[int], set[int]]:
    """From the source alone: the ids of `shared` that were updated, and those that never had a row."""
    options = RaggedOptions(features=["a", "b", "wide"], batches=BATCHES)
    seen, held = Counter[int](), set[int]()
    for number in range(BATCHES):
        features = make_batch(options, number).features
        ids = [*features["a"].ids_n.tolist(), *features["b"].ids_n.tolist()]
        held |= {i for i in ids if seen[i] >= AFTER}
        seen.update(ids)
    return held, set(seen) - held


def test_just_the_ids_that_occurred_often_enough_before_have_rows(whole: Job) -> None:
    held, without = ids_with_rows()
    assert held
    assert without
    assert set(whole.tables()["shared"]["ids"].tolist()) == held
    figures = whole.summary["store"]["admission"]["shared"]
    assert figures["counting"] == "exact"
    assert figures["default_lookups"] > 0
    assert "wide" not in whole.summary["store"]["admission"]


def test_replica_and_rows_answer_the_others_with_the_default_row(whole: Job) -> None:
    assert_replica_equals(whole)
    _, without = ids_with_rows()
    asked = [*sorted(without), 123456789]
    with Replica(str(whole.dir / "stream")) as replica:
        replica.apply_available()
        with replica.view() as view:
            weights_nd, versions_n = view.lookup_versions("shared", asked)
            assert np.array_equal(weights_nd, np.full((len(asked), 8), DEFAULT, np.float32))
            assert not versions_n.any()
            assert not np.array_equal(view.lookup("wide", asked), np.full((len(asked), 16), DEFAULT, np.float32))
    shown = here("rows", whole.dir, "--table", "shared", "--ids", "123456789")
    assert "default row" in shown.text
    assert "+0.25" in shown.text


@pytest.mark.parametrize(("lookahead", "disk"), [(1, False), (8, False), (8, True)])
def test_l1_lookahead_and_tiers_change_no_bit(tmp_path: Path, whole: Job, lookahead: int, disk: bool) -> None:
    below = ["store.ssd.segment_bytes=4096", "store.ssd.extent_bytes=4096"] if disk else []
    l1_rows = f"store.l1_rows={whole.least_l1() + (lookahead - 1) * 4}"
    job = run_job(tmp_path / "run", config(), l1_rows, f"stages.prefetch.lookahead={lookahead}", *below)
    assert job.summary["l1"]["evictions"] > 0
    assert_same_bits(whole, job)
    assert job.summary["store"]["admission"] == whole.summary["store"]["admission"]
    assert_replica_equals(job)


class Killed(Exception):
    """Stands for a process that ended between two steps."""


def die_at(step: int) -> Callable[[int], None]:
    def die(ended: int) -> None:
        if ended == step:
            raise Killed

    return die


def test_a_crashed_run_goes_on_with_the_counts_of_its_checkpoint(tmp_path: Path, whole: Job) -> None:
    ahead = ["stages.prefetch.lookahead=8", "checkpoint.every='5 steps'"]
    for attempt, step in enumerate((23, 41)):
        with pytest.raises((StageError, ExceptionGroup)):
            run_job(tmp_path / "run", config(), *ahead, on_step=die_at(step), resume=attempt > 0)
    job = run_job(tmp_path / "run", config(), *ahead, resume=True)
    assert_same_bits(whole, job)
    assert_replica_equals(job)
    assert job.summary["store"]["admission"] == whole.summary["store"]["admission"]


def test_fetch_answers_ids_without_a_row_with_the_default_row_while_training(tmp_path: Path) -> None:
    seen: list[bool] = []

    def watch(resources: Any) -> None:
        def fetch(step: int, _plan: Any) -> None:
            asked = np.concatenate([np.arange(-2, 50), np.arange(1000, 1400)])
            rows = resources.store.fetch_rows("shared", asked)
            default_n = (rows.weights_nd == np.float32(DEFAULT)).all(axis=1)
            assert np.array_equal(default_n, ~rows.updated_n), f"step {step}"
            seen.append(bool(rows.updated_n.any()))

        resources.store.on_step(fetch)

    run_job(tmp_path / "run", config(), "stages.prefetch.lookahead=8", on_open=watch)
    assert seen[-1]


def test_eval_answers_ids_without_a_row_with_the_default_row_and_counts_no_use(
    tmp_path: Path, whole: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, Any, Any]] = []

    def watched(snapshot: Any, tables: Any, batch: Any, unique: Any) -> Any:
        pooled = pool_snapshot(snapshot, tables, batch, unique)
        seen.append((snapshot.step, batch, pooled))
        return pooled

    monkeypatch.setattr("stages.eval.pool_snapshot", watched)
    made = config()
    held_out = {**made["stages"]["source"], "seed": 9, "batches": 4, "vocabulary": 4000}
    stream = made["stages"].pop("stream")
    made["stages"] |= {"eval": {"every": 7, "source": held_out}, "stream": stream}
    job = run_job(tmp_path / "run", made, "stages.prefetch.lookahead=8")
    assert_same_bits(whole, job)
    assert job.summary["store"]["admission"] == whole.summary["store"]["admission"], "what eval reads is no occurrence"

    rows = job.tables()["shared"]
    row_of = dict(zip(rows["ids"].tolist(), rows["weights"], strict=True))
    absent, unseen = np.full(8, DEFAULT, np.float32), 0
    for batch, pooled in [(batch, pooled) for step, batch, pooled in seen if step == BATCHES]:
        for f, name in enumerate(("a", "b")):
            found_bd = pooled.pooled_bs[:, 8 * f : 8 * f + 8].numpy()
            for b, (start, end) in enumerate(pairwise(batch.offsets_fb[f].tolist())):
                bag = batch.ids_n[start:end].tolist()
                expected = np.sum([row_of.get(i, absent) for i in bag] or [np.zeros(8)], axis=0)
                assert np.allclose(found_bd[b], expected, atol=1e-5), f"bag {b} of {name}"
                unseen += sum(i not in row_of for i in bag)
    assert unseen > 0
    assert len(seen) == 4 * len(job.summary["evals"])


def test_a_sketch_changes_no_bit_wherever_rows_lie_and_goes_on_after_a_crash(tmp_path: Path) -> None:
    """With the least bytes, and more ids than those count exactly, in a checkpoint too."""
    made = config(bytes=LEAST_BYTES, after=2)
    made["stages"]["source"] |= {"vocabulary": 6000, "samples": 80, "batches": 40}
    calm = run_job(tmp_path / "calm", made, "store.l1_rows=4096", "stages.prefetch.lookahead=1")
    figures = calm.summary["store"]["admission"]["shared"]
    assert figures["exact_ids"] == LEAST_BYTES // 2 // ID_BYTES
    assert "sketch" in figures["counting"]
    assert figures["default_lookups"] > 0
    small = [f"store.l1_rows={calm.least_l1() + 30}", "store.ssd.segment_bytes=4096", "store.ssd.extent_bytes=4096"]
    ahead = [*small, "stages.prefetch.lookahead=8", "checkpoint.every='5 steps'"]
    with pytest.raises((StageError, ExceptionGroup)):
        run_job(tmp_path / "run", made, *ahead, on_step=die_at(28))
    job = run_job(tmp_path / "run", made, *ahead, resume=True)
    assert job.summary["l1"]["evictions"] > 0
    assert_same_bits(calm, job)
    assert_replica_equals(job)
    assert job.summary["store"]["admission"] == calm.summary["store"]["admission"]
