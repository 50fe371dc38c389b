"""narrow: tables in fp16 and bf16 beside fp32: bytes of a row, samples a second, AUC on the held-out fifth of movielens.

Whole runs of one config, which differ in what rows are kept in alone, by turns; speeds are compared within a round, and what is
told is the median of the rounds' ratios. The AUC of a config is the same in every round, whatever else the machine does. The rows of
``kernels`` are the lookup and the update of one large batch of resident rows, by turns too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from cuda.host import HostBackend
from cuda.plan import SUM, BatchIds, FeatureSet, Matrix, SlotPlan
from pipeline.optim import AdamOptions, OptimizerOptions, RowwiseAdagradOptions, layout_of, rule_of
from pipeline.rows.layout import RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.session.plan import DTYPES
from tools.bench.jobs import ROOT, have_data, run_config, scratch
from tools.bench.report import BenchRow

NAME = "narrow"
HELP = "tables in fp16 and bf16 beside fp32: bytes, samples a second, AUC on movielens; lookup and update"
KEPT: Final[Mapping[str, Mapping[str, str]]] = {
    "fp32": {},
    "fp16": {"weights": "fp16"},
    "fp16 to nearest": {"weights": "fp16", "rounding": "nearest"},
    "bf16": {"weights": "bf16"},
}
DATA, TABLES, DIM = "ml-1m-half", ("user", "movie"), 64
ROUNDS: Final = {True: 1, False: 3}
BATCH, ROWS, REPEATS = 65_536, 500_000, 15


def run(quick: bool) -> list[BenchRow]:
    rows = [*_kernels(RowwiseAdagradOptions(), "fp16", "fp32"), *_kernels(AdamOptions(), "fp16", "bf16")]
    if not have_data(DATA):
        return [*rows, BenchRow(NAME, "movielens", f"left out: no {DATA} under $ROWSTREAM_DATA")]
    return [*rows, *_movielens(ROUNDS[quick])]


def _movielens(rounds: int) -> list[BenchRow]:
    summaries: dict[str, list[dict[str, Any]]] = {name: [] for name in KEPT}
    with scratch() as directory:
        for number in range(rounds):
            for name, kept in KEPT.items():
                summaries[name].append(_train(directory / f"{name.replace(' ', '-')}-{number}", kept))
    plain = summaries["fp32"]
    return [_row(name, found, plain) for name, found in summaries.items()]


def _train(directory: Path, kept: Mapping[str, str]) -> dict[str, Any]:
    options = [f"tables.{table}.{key}={value}" for table in TABLES for key, value in kept.items()]
    return run_config(str(ROOT / "configs" / "movielens.yaml"), directory, options)[0]


def _row(name: str, found: list[dict[str, Any]], plain: list[dict[str, Any]]) -> BenchRow:
    layout = layout_of(RowwiseAdagradOptions(), DIM, DTYPES[KEPT[name].get("weights", "fp32")])
    speed = statistics.median(
        one["samples_per_s"] / other["samples_per_s"] for one, other in zip(found, plain, strict=True)
    )
    measured = (
        f"{layout.row_bytes} bytes a row, {statistics.median(one['samples_per_s'] for one in found):,.0f} samples/s "
        f"({speed:.2f}x), AUC {found[0]['eval_auc']:.5f}, log loss {found[0]['eval_log_loss']:.5f}"
    )
    against = f"{layout_of(RowwiseAdagradOptions(), DIM).row_bytes} bytes a row, AUC {plain[0]['eval_auc']:.5f}"
    knobs = {"config": "movielens", "dim": DIM, "rounds": len(found), **KEPT[name]}
    return BenchRow(NAME, f"movielens in {name}", measured, "fp32", against, knobs=knobs)


class _Side:
    """One table of resident rows, and a batch of distinct ids of it, in no order."""

    def __init__(self, options: OptimizerOptions, layout: RowLayout) -> None:
        self.backend, self.rules = HostBackend(2), [rule_of(options)]
        self.layout = layout
        self.backend.open([TableSpec("t", layout, Initializer(), 0)], ROWS)
        slots = np.arange(ROWS, dtype=np.int32)
        self.backend.admit(slots, np.zeros(ROWS, np.int32), slots.astype(np.int64))
        features = FeatureSet(("f",), np.zeros(1, np.int32), np.full(1, DIM, np.int32), np.full(1, SUM, np.int32), 1)
        ids = np.random.default_rng(0).permutation(ROWS)[:BATCH].astype(np.int64)
        offsets = np.arange(BATCH + 1, dtype=np.int64)
        batch = BatchIds(features, BATCH, ids, offsets[[0, -1]].copy(), offsets.reshape(1, -1), None)
        unique = self.backend.deduplicate(batch)
        self.plan = SlotPlan(batch, unique, self.backend.locate(unique.tables_u, unique.ids_u))
        self.out = Matrix.of(np.zeros((BATCH, DIM), np.float32))
        self.gradient = Matrix.of(np.random.default_rng(1).standard_normal((BATCH, DIM)).astype(np.float32))
        self.ms: dict[str, list[float]] = {"lookup": [], "update": []}

    def step(self, step: int) -> None:
        began = time.perf_counter()
        self.backend.gather_pool(self.plan, [self.out])
        looked = time.perf_counter()
        self.backend.update(self.plan, [self.gradient], self.rules, step)
        self.ms["lookup"].append((looked - began) * 1e3)
        self.ms["update"].append((time.perf_counter() - looked) * 1e3)


def _kernels(options: OptimizerOptions, weights: str, states: str) -> list[BenchRow]:
    wide = _Side(options, layout_of(options, DIM))
    narrow = _Side(options, layout_of(options, DIM, DTYPES[weights], DTYPES[states]))
    for step in range(1, REPEATS + 4):
        wide.step(step)
        narrow.step(step)
    rows = []
    for what, ms in narrow.ms.items():
        ratio = statistics.median(other / one for one, other in zip(ms[3:], wide.ms[what][3:], strict=True))
        kept = f"weights {weights}, states {states}"
        measured = f"{statistics.median(ms[3:]):.2f} ms, {narrow.layout.row_bytes} bytes a row: {ratio:.2f}x the speed"
        peer = f"{statistics.median(wide.ms[what][3:]):.2f} ms, {wide.layout.row_bytes} bytes a row"
        knobs = {"optimizer": options.kind, "ids": BATCH, "rows": ROWS, "dim": DIM, "threads": 2, "repeats": REPEATS}
        rows.append(
            BenchRow(NAME, f"{what} of {BATCH:,} rows, {options.kind}, {kept}", measured, "fp32", peer, knobs=knobs)
        )
    narrow.backend.close()
    wide.backend.close()
    return rows
