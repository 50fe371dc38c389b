"""Expiry ends the rows that a plain dict says, at any lookahead; and a store under full concurrency forgets just them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cuda.plan import UniqueIds
from pipeline.store import ExpiryRule, SsdTier
from pipeline.store.admission import LEAST_BYTES, AdmissionRule
from pipeline.store.dynamic import DynamicTables, Screened
from tests.sabotage.ending import IN_MEMORY, ON_DISK
from tests.store.expiry_oracle import PlainUses
from tests.store.jobs import TABLE_NAMES, batch_of, make_store, train_step, whole_grads
from tests.store.stress import FEWEST_CHECKPOINTS, StressPlan, assert_caught, drawn_plan, stress
from tests.store.test_admission import unique_of
from tests.store.tiers import make_tier

RULES = {
    "unused for some steps": ExpiryRule(5, None, "last_use", 1),
    "unused, in rounds": ExpiryRule(3, None, "last_use", 4),
    "the most recent stay": ExpiryRule(None, 20, "last_use", 2),
    "the most used stay": ExpiryRule(None, 20, "uses", 3),
    "both": ExpiryRule(6, 15, "uses", 3),
}
NEVER = ExpiryRule(None, 10**6, "last_use", 1)


def ended(screened: Screened, table: int) -> list[int]:
    parts = {} if screened.expired is None else dict(screened.expired.by_table())
    return [] if table not in parts else [int(row_id) for row_id in parts[table]]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_rows_end_as_in_a_dict_also_across_a_resume(rule: ExpiryRule) -> None:
    rng = np.random.default_rng()
    dynamic, plain, total = DynamicTables(("t", "kept"), (None, None), (rule, NEVER)), PlainUses(rule), 0
    for step in range(1, 80):
        ids_n = rng.zipf(1.2, int(rng.integers(0, 30))) % 90 - 7
        if step == 40:
            state = dynamic.state()
            for later in range(step, step + 9):
                dynamic.screen(later, unique_of(rng.integers(0, 50, 10)))
            dynamic = DynamicTables(("t", "kept"), (None, None), (rule, NEVER))
            dynamic.restore(state)
        if step % 13 == 0:
            continue  # a step without samples is not screened
        screened = dynamic.screen(step, unique_of(ids_n))
        assert dynamic.screen(step, unique_of(ids_n)) is screened
        expected = plain.step(step, ids_n.tolist())
        assert ended(screened, 0) == expected
        assert ended(screened, 1) == []
        if screened.expired is not None:
            assert (screened.expired.last_use_x <= step).all()
        total += len(expected)
    figures = dynamic.figures()
    assert total > 20
    assert figures["expiry"]["t"]["expired"] == total
    assert figures["expiry"]["t"]["rows"] == len(plain.last)
    assert "admission" not in figures


@pytest.mark.parametrize("buckets", [1, 2, 1 << 20])
def test_scores_far_apart_are_told_apart_too(monkeypatch: pytest.MonkeyPatch, buckets: int) -> None:
    """Beyond so many different scores they are found in another way."""
    monkeypatch.setattr("pipeline.store.expiry.MOST_BUCKETS", buckets)
    test_rows_end_as_in_a_dict_also_across_a_resume(RULES["both"])
    test_rows_end_as_in_a_dict_also_across_a_resume(RULES["the most recent stay"])


def test_a_row_that_has_ended_is_admitted_anew() -> None:
    dynamic = DynamicTables(
        ("t", "kept"), (AdmissionRule(2, LEAST_BYTES), None), (ExpiryRule(3, None, "last_use", 1), None)
    )

    def has_row(step: int, *ids: int) -> list[bool]:
        own: UniqueIds = dynamic.screen(step, unique_of(np.array(ids, np.int64))).own
        return [i in own.ids_u[: own.table_start_t[1]].tolist() for i in ids]

    assert has_row(1, 7) == [False]
    assert has_row(2, 7) == [False]
    assert has_row(3, 7) == [True]
    assert has_row(5, 8) == [False]
    assert has_row(6, 8) == [False], "and with this step the row of 7 ends, which was used in step 3"
    assert has_row(7, 7, 8) == [False, True]
    assert has_row(8, 7) == [False]
    assert has_row(9, 7) == [True]


def test_where_rows_have_ended_there_is_room_to_count_others_exactly_but_never_late() -> None:
    """An id that the sketch has counted stays there, however much room there is."""
    exact = LEAST_BYTES // 2 // 64
    dynamic = DynamicTables(
        ("t", "kept"), (AdmissionRule(1, LEAST_BYTES), None), (ExpiryRule(2, None, "last_use", 1), None)
    )
    dynamic.screen(1, unique_of(np.arange(exact)))
    dynamic.screen(2, unique_of(np.concatenate([np.arange(exact), [10**6]])))
    assert "sketch" in dynamic.figures()["admission"]["t"]["counting"]
    for step in (3, 4):
        dynamic.screen(step, unique_of(np.array([5])))
    assert dynamic.figures()["admission"]["t"]["exact_ids"] == 1
    own = dynamic.screen(5, unique_of(np.array([10**6]))).own
    assert own.ids_u[: own.table_start_t[1]].tolist() == [10**6]
    assert dynamic.figures()["admission"]["t"]["exact_ids"] == 1


def test_rows_that_have_ended_leave_the_disk_with_compaction(tmp_path: Path) -> None:
    """At once nobody finds them; what they took goes when the log is compacted."""
    dynamic = DynamicTables(TABLE_NAMES, (None,) * 3, (ExpiryRule(30, None, "last_use", 1), None, None))
    tier = make_tier("ssd", tmp_path)
    assert isinstance(tier, SsdTier)
    random, store = np.random.default_rng(), make_store(tier, l1_rows=300, dynamic=dynamic)
    try:
        for step in range(1, 41):
            bags = [list(range(250 * step, 250 * step + 250))] if step < 11 else [[7]]
            batch = batch_of([bags, [[]], [[]], [[]]])
            train_step(store, step, batch, whole_grads(random, batch))
            if step == 30:
                store.clean_ahead()
                assert tier.count("users") > 2000
        assert store.counters.expired_rows == 2500
        assert tier.count("users") <= 1
        for _ in range(20):
            tier.log.flush()
            tier.log.table("users").rotate()
            tier.log.compact()
        assert tier.log.table("users").num_rows < 500
    finally:
        store.close()


SHORT = (ExpiryRule(6, None, "last_use", 1), ExpiryRule(None, 12, "uses", 3), None)
CROWDED = (ExpiryRule(None, 8, "last_use", 1), ExpiryRule(2, 20, "uses", 1), ExpiryRule(4, None, "last_use", 5))
PLANS = {
    "rows come, go and end all the time": StressPlan(21, l1_rows=36, expiries_t=CROWDED, steps=160),
    "nothing leaves but what ends": StressPlan(22, l1_rows=250, expiries_t=SHORT, steps=160),
    "one batch at a time": StressPlan(23, l1_rows=36, lookahead=1, clean_ahead=0, expiries_t=CROWDED, steps=160),
    "far ahead, everything cleaned": StressPlan(24, clean_ahead=1.0, lookahead=16, expiries_t=CROWDED, steps=160),
    "a little memory over the tier": StressPlan(25, l1_rows=36, dram_rows=64, steps=160, expiries_t=SHORT),
    "many readers without pauses": StressPlan(26, readers=4, pause_s=0, steps=200, expiries_t=CROWDED),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_every_lookup_and_every_snapshot_is_the_oracles(plan: StressPlan) -> None:
    counters = stress(plan).counters
    assert counters.expired_rows > 50
    assert counters.saved_rows


@pytest.mark.parametrize("dram_rows", [None, 64])
def test_checkpoints_hold_no_row_that_has_ended(tmp_path: Path, dram_rows: int | None) -> None:
    log_path = str(tmp_path / "log")
    plan = StressPlan(27, l1_rows=36, dram_rows=dram_rows, steps=160, num_ids=90, log_path=log_path, expiries_t=CROWDED)
    store = stress(plan)
    assert store.counters.snapshots["checkpoint"] >= FEWEST_CHECKPOINTS
    assert store.counters.expired_rows > 50


@pytest.mark.parametrize("spill_bytes", [0, 1 << 22])
def test_shadows_without_room_spill_or_hold_training_when_rows_end(tmp_path: Path, spill_bytes: int) -> None:
    plan = StressPlan(
        28, readers=3, shadow_bytes=1500, spill_bytes=spill_bytes, spill_path=str(tmp_path), expiries_t=CROWDED
    )
    counters = stress(plan).counters
    assert counters.spilled_rows if spill_bytes else counters.held_training_s


@pytest.mark.parametrize("name", IN_MEMORY)
def test_a_sabotage_of_rows_that_end_is_caught(name: str) -> None:
    assert_caught(IN_MEMORY[name], lambda seed: StressPlan(seed, l1_rows=36, expiries_t=CROWDED, steps=120))


@pytest.mark.parametrize("name", ON_DISK)
def test_a_sabotage_of_the_log_of_rows_that_end_is_caught(tmp_path: Path, name: str) -> None:
    plan = StressPlan(0, l1_rows=36, lookahead=16, expiries_t=CROWDED, steps=160)
    assert_caught(ON_DISK[name], lambda seed: replace(plan, seed=seed, log_path=str(tmp_path / str(seed))))


def drawn_rule(draw: np.random.Generator) -> ExpiryRule | None:
    if draw.random() < 0.2:
        return None
    steps = int(draw.integers(1, 10)) if draw.random() < 0.6 else None
    rows = int(draw.integers(1, 30)) if steps is None or draw.random() < 0.5 else None
    return ExpiryRule(
        steps, rows, "last_use" if rows is None or draw.random() < 0.5 else "uses", int(draw.integers(1, 6))
    )


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200))
def test_the_long_form_of_rows_that_end(seed: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(seed)
    plan = replace(
        drawn_plan(3000 + seed, draw),
        steps=int(draw.choice([60, 160])),
        l1_rows=int(draw.choice([44, 48, 60, 250])),
        num_ids=int(draw.choice([60, 120])),
        shadow_bytes=int(draw.choice([1500, 1 << 20])),
        spill_bytes=int(draw.choice([0, 1 << 22])),
        spill_path=str(tmp_path / "spill"),
        dram_rows=int(draw.choice([64, 120])) if draw.random() < 0.4 else None,
        log_path=str(tmp_path / "log") if draw.random() < 0.5 else None,
        expiries_t=(drawn_rule(draw), drawn_rule(draw), drawn_rule(draw)),
    )
    stress(plan)
