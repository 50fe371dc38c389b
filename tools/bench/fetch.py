"""fetch: rows on demand, from each tier, and what a steady reader costs training.

Each fetch asks for random ids of a table of which one tier alone holds all rows (L1 those of one batch). Cold reads pass the system's
page cache; warm ones find their rows there.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from cuda.backend import UpdateRule
from cuda.host import HostBackend
from cuda.plan import NONE, BatchIds, FeatureSet
from pipeline.files import RealFiles
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.store import DramTier, SsdTier, Store, StoreOptions, Tier
from tools.bench.fetch_windows import ROWS_A_FETCH
from tools.bench.jobs import data_root, have_data, measure_windows, scratch
from tools.bench.report import BenchRow
from tools.bench.stream_windows import SETTLE_STEPS, WINDOW_STEPS
from tools.bench.threads import per_step

NAME = "fetch"
HELP = "rows/s of fetch_rows from L1, DRAM and SSD, and training beside a reader of 100,000 rows a second"

FETCHED, DIM, DEPTH, REPEATS = 100_000, 64, 64, 7
GOAL_SHARE, GOAL_ROWS_PER_S = 0.98, 100_000


def run(quick: bool) -> list[BenchRow]:
    with scratch() as directory:
        count = 200_000 if quick else 2_000_000
        rows = [
            _by_tier(where, directory / where.replace(" ", "-"), count)
            for where in ("L1", "DRAM", "SSD warm", "SSD cold")
        ]
        rows += _beside_training(directory / "run", 400 if quick else 3000)
    return rows


def _by_tier(where: str, directory: Path, count: int) -> BenchRow:
    columns = Column("weight", "float32", DIM, "weight"), Column("momentum", "float32", 1, "state")
    spec = TableSpec("rows", RowLayout(columns), Initializer(), 0)
    features = FeatureSet(("rows",), np.zeros(1, np.int32), np.full(1, DIM, np.int32), np.full(1, NONE, np.int32), 1)
    tier: Tier = DramTier()
    if where.startswith("SSD"):
        direct = where == "SSD cold"
        tier = SsdTier(
            RowLog([str(directory)], RealFiles(), lambda: RealReads(depth=DEPTH, direct=direct), RowLogOptions())
        )
    rule = UpdateRule("rowwise_adagrad", (0.01, 1e-8))
    store = Store([spec], [rule], features, HostBackend(2), tier, StoreOptions(l1_rows=2 * FETCHED))
    store.open()
    try:
        for start in range(0, count, FETCHED):
            ids_n = np.arange(start, start + FETCHED)
            rows_nb = spec.layout.empty(FETCHED)
            store.load_rows("rows", ids_n, rows_nb, np.ones(FETCHED, np.int64))
        tier.flush()
        random = np.random.default_rng(0)
        ids_n = random.choice(count, FETCHED, replace=False).astype(np.int64)
        if where == "L1":
            _make_resident(store, features, ids_n)
        seconds = []
        for _ in range(REPEATS + 1):
            if where != "L1":
                ids_n = random.integers(0, count, FETCHED)
            began = time.perf_counter()
            fetched = store.fetch_rows("rows", ids_n)
            seconds.append(time.perf_counter() - began)
            assert fetched.updated_n.all()
    finally:
        store.close()
    rates = [FETCHED / taken for taken in seconds[1:]]  # the first one compiles
    told = f"{statistics.median(rates):,.0f} rows/s ({min(rates):,.0f} to {max(rates):,.0f})"
    knobs = {
        "rows": count,
        "fetched": FETCHED,
        "dim": DIM,
        "repeats": REPEATS,
        "depth": DEPTH if "SSD" in where else "-",
    }
    return BenchRow(NAME, f"fetch_rows of {FETCHED:,} random ids: {where}", told, knobs=knobs)


def _make_resident(store: Store, features: FeatureSet, ids_n: np.ndarray) -> None:
    count = ids_n.shape[0]
    starts = np.array([0, count], np.int64)
    batch = BatchIds(features, count, ids_n, starts, np.arange(count + 1, dtype=np.int64)[None], None)
    reservation = store.try_reserve(1, batch, store.backend.deduplicate(batch))
    assert reservation is not None
    store.read_misses(reservation)
    store.release(reservation)


def _beside_training(directory: Path, steps: int) -> list[BenchRow]:
    what = f"globo: samples/s beside fetches of {GOAL_ROWS_PER_S:,} rows a second"
    if not have_data("globo"):
        absent = f"absent: no {data_root() / 'globo'}; set ROWSTREAM_DATA"
        return [BenchRow(NAME, what, absent, goal=f">= {GOAL_SHARE}")]
    windows = measure_windows("globo", directory, [f"run.steps={steps}"], module="fetch_windows")
    ratios = [off / on for off, on in zip(windows["off_ms"], windows["on_ms"], strict=True)]
    low, share, high = statistics.quantiles(ratios, n=4)
    rate = windows["rows"] / windows["on_s"]
    told = f"{share:.3f} (median of {len(ratios)} pairs; middle half {low:.3f} to {high:.3f}; {rate:,.0f} rows/s)"
    knobs = {
        "steps": steps,
        "rows_a_fetch": ROWS_A_FETCH,
        "ms_a_fetch": round(windows["ms_a_fetch"], 2),
        "of the processor": round(windows["ran_ms_a_fetch"], 2),
        "of": windows["seen"],
    }
    met = share >= GOAL_SHARE and rate >= 0.95 * GOAL_ROWS_PER_S
    return [
        BenchRow(NAME, what, told, "no fetches", "1", f">= {GOAL_SHARE}", met, knobs),
        _threads(windows, knobs),
    ]


def _threads(windows: dict[str, Any], knobs: dict[str, Any]) -> BenchRow:
    """What each thread took of a step: steadier than the step on a machine that others use too."""
    in_window = WINDOW_STEPS - SETTLE_STEPS
    on, off = (
        per_step(
            windows[f"{side}_times"],
            sum(windows[f"{side}_ms"]) / 1e3 * in_window,
            len(windows[f"{side}_ms"]) * in_window,
        )
        for side in ("on", "off")
    )
    return BenchRow(
        NAME, "globo: ms a step that each thread ran (and waited for a processor)", on, "no fetches", off, knobs=knobs
    )
