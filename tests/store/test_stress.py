"""The whole store under full concurrency, and each of its protections shown to matter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.sabotage.store import SABOTAGES
from tests.store.stress import FEWEST_CHECKPOINTS, StressPlan, assert_caught, drawn_plan, stress

PLANS = {
    "rows come and go all the time": StressPlan(1, l1_rows=36),
    "nothing ever leaves": StressPlan(2, l1_rows=250),
    "one batch at a time, oldest out first": StressPlan(3, l1_rows=36, lookahead=1, policy="lru", clean_ahead=0),
    "least used out first, everything cleaned ahead": StressPlan(4, policy="lfu", clean_ahead=1.0, lookahead=16),
    "a little memory over the tier": StressPlan(8, l1_rows=36, dram_rows=64, steps=120),
    "memory over the tier, nothing cleaned ahead": StressPlan(9, l1_rows=36, dram_rows=70, policy="lfu", clean_ahead=0),
    "many readers without pauses": StressPlan(5, readers=4, pause_s=0, steps=150),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_every_lookup_and_every_snapshot_is_the_oracles_bit_for_bit(plan: StressPlan) -> None:
    store = stress(plan)
    assert sum(store.counters.snapshots.values()) > 1
    assert store.counters.saved_rows
    assert store.counters.copied_at_fence or plan.dram_rows


@pytest.mark.parametrize("dram_rows", [None, 64])
def test_snapshots_and_checkpoints_over_a_disk_that_is_compacted(tmp_path: Path, dram_rows: int | None) -> None:
    """All rows that one call returns are of one step, and so are those of a checkpoint."""
    plan = StressPlan(10, l1_rows=36, dram_rows=dram_rows, steps=120, num_ids=90, log_path=str(tmp_path / "log"))
    store = stress(plan)
    assert store.counters.snapshots["checkpoint"] >= FEWEST_CHECKPOINTS
    assert store.counters.saved_rows


def test_a_shadow_that_spills_answers_with_the_same_bits(tmp_path: Path) -> None:
    plan = StressPlan(6, readers=3, shadow_bytes=6000, spill_bytes=1 << 22, spill_path=str(tmp_path))
    assert stress(plan).counters.spilled_rows
    assert not list(tmp_path.iterdir())


def test_a_shadow_without_room_abandons_cuts_and_holds_training_for_others() -> None:
    counters = stress(StressPlan(7, readers=3, shadow_bytes=1500, spill_bytes=0)).counters
    assert counters.abandoned
    assert counters.held_training_s


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str) -> None:
    assert_caught(SABOTAGES[name], StressPlan)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200))
def test_the_long_form(seed: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(seed)
    plan = replace(
        drawn_plan(1000 + seed, draw),
        steps=int(draw.choice([40, 120, 300])),
        l1_rows=int(draw.choice([36, 40, 60, 250])),
        dram_rows=(None, None, 64, 100)[int(draw.integers(4))],
    )
    shadow_bytes, spill_bytes = draw.choice([0, 400, 3000, 1 << 20]), draw.choice([0, 3000, 1 << 20])
    stress(replace(plan, spill_path=str(tmp_path), shadow_bytes=int(shadow_bytes), spill_bytes=int(spill_bytes)))
