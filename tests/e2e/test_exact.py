"""G1: the same bits for every L1 size, lookahead, channel bound, policy, streaming setting and delay."""

from __future__ import annotations

import asyncio
import copy
import random
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pipeline.store import DramTier
from pipeline.store.cache_size import LEAST_ROWS, bytes_for
from tests.e2e.jobs import RAGGED, Job, assert_same_bits, run_job
from tests.e2e.real_jobs import RealJob
from tests.support.grids import grid


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The run all others are compared with: everything resident, nothing ahead, no stream."""
    directory = tmp_path_factory.mktemp("exact") / "base"
    return run_job(
        directory, RAGGED, "store.l1_rows=4096", "stages.prefetch.lookahead=1", "stages.stream.enabled=false"
    )


@pytest.mark.parametrize(
    ("policy", "ahead"),
    grid(
        ["lru", "lfu", "lookahead"],
        [(1, 1), (3, 8), (16, 2)],
        always=[("lru", (1, 1)), ("lfu", (3, 8)), ("lookahead", (16, 2))],
    ),
)
def test_smallest_l1_gives_the_same_bits(tmp_path: Path, ragged: Job, policy: str, ahead: tuple[int, int]) -> None:
    """``ahead``: batches of lookahead, and items in each queue."""
    lookahead, queue = ahead
    queues = [
        f"stages.{stage}.queue.items={queue}" for stage in ("prefetch", "lookup", "train", "update", "evict", "stream")
    ]
    l1_rows = f"store.l1_rows={ragged.least_l1() + (lookahead - 1) * 4}"
    job = run_job(
        tmp_path / "run", RAGGED, l1_rows, f"store.policy={policy}", f"stages.prefetch.lookahead={lookahead}", *queues
    )
    assert job.summary["l1"]["evictions"] > 0
    assert_same_bits(ragged, job)


@pytest.mark.parametrize(
    ("lookahead", "segment_bytes", "direct"), [(1, 4096, True), (4, 65536, False), (32, 64 << 20, True)]
)
def test_rows_on_disk_give_the_same_bits(
    tmp_path: Path, ragged: Job, lookahead: int, segment_bytes: int, direct: bool
) -> None:
    """Segments from one that a few rows fill, so that all is compacted again and again, to one that never ends."""
    l1_rows = f"store.l1_rows={ragged.least_l1() + (lookahead - 1) * 4}"
    disk = [f"store.ssd.segment_bytes={segment_bytes}", f"store.ssd.direct={direct}", "store.ssd.extent_bytes=4096"]
    job = run_job(tmp_path / "run", RAGGED, l1_rows, *disk, f"stages.prefetch.lookahead={lookahead}")
    assert job.summary["l1"]["evictions"] > 0
    assert job.summary["store"]["tier"] == "ssd"
    assert (job.summary["store"]["ssd"]["compacted_rows"] > 0) == (segment_bytes == 4096)
    assert_same_bits(ragged, job)


ONE_BY_ONE, AHEAD = (1, "lru", 0.0), (4, "lfu", 0.5)


@pytest.mark.parametrize(
    ("dram_rows", "way"),
    grid(
        [None, LEAST_ROWS, 200, 100_000],
        [ONE_BY_ONE, AHEAD],
        always=[(None, AHEAD), (LEAST_ROWS, ONE_BY_ONE), (LEAST_ROWS, AHEAD), (200, AHEAD), (100_000, ONE_BY_ONE)],
    ),
)
def test_memory_over_the_disk_gives_the_same_bits(
    tmp_path: Path, ragged: Job, dram_rows: int | None, way: tuple[int, str, float]
) -> None:
    """No memory, as little as can be, some, and more than all rows need. ``way``: lookahead, policy, share cleaned ahead."""
    lookahead, policy, clean_ahead = way
    specs = ragged.trainer.plan.specs
    memory = [] if dram_rows is None else [f"store.dram_bytes={bytes_for(specs, dram_rows)}"]
    l1_rows = f"store.l1_rows={ragged.least_l1() + (lookahead - 1) * 4}"
    others = [f"store.policy={policy}", f"store.clean_ahead={clean_ahead}", f"stages.prefetch.lookahead={lookahead}"]
    disk = ["store.ssd.segment_bytes=65536", "store.ssd.extent_bytes=4096"]
    job = run_job(tmp_path / "run", RAGGED, l1_rows, *disk, *memory, *others)
    store = job.summary["store"]
    assert store["tier"] == ("ssd" if dram_rows is None else "dram over ssd")
    if dram_rows is not None:
        dram, ssd = store["dram"], store["ssd"]
        assert dram["hits"] > 0
        assert dram["rows"] <= dram["max_rows"] == dram_rows
        assert (dram["written_back"] > 0) == (dram_rows < 1000)
        assert ssd["rows"] > 0, "the checkpoint saved them"
        assert sum(store["tier_rows"].values()) <= dram["dirty_rows"] + ssd["rows"]
    assert_same_bits(ragged, job)


@pytest.mark.parametrize(
    ("codec", "every"),
    grid(
        ["fp32", "fp16"],
        ["1 steps", "7 steps", "3ms"],
        always=[("fp32", "1 steps"), ("fp16", "7 steps"), ("fp16", "3ms")],
    ),
)
def test_streaming_changes_nothing(tmp_path: Path, ragged: Job, codec: str, every: str) -> None:
    job = run_job(tmp_path / "run", RAGGED, f"stages.stream.codec={codec}", f"stages.stream.every='{every}'")
    assert job.summary["cuts"] > 0
    assert_same_bits(ragged, job)


@pytest.mark.parametrize("stage", ["prefetch", "lookup", "train", "update", "evict"])
def test_a_users_copy_of_a_stage_changes_nothing(tmp_path: Path, ragged: Job, stage: str) -> None:
    config = copy.deepcopy(RAGGED)
    config["stages"][stage]["use"] = f"tests.e2e.copied_stages:My{stage.title()}"
    assert_same_bits(ragged, run_job(tmp_path / "run", config))


class RandomDelays:
    """Seeded delays at every await, lane entry and tier read; the sequence is seeded, who meets which delay is up to the scheduler."""

    def __init__(self, seed: int) -> None:
        self._random, self._lock = random.Random(seed), threading.Lock()

    def _draw(self) -> float:
        with self._lock:
            return self._random.random() * 0.002 if self._random.random() < 0.3 else 0.0

    async def pause(self, _point: str) -> None:
        await asyncio.sleep(self._draw())

    def block(self, _point: str) -> None:
        delay = self._draw()
        if delay:
            time.sleep(delay)


def delayed_run(tmp_path: Path, base: Job, seed: int) -> None:
    draw = random.Random(seed)
    overrides = (
        f"store.l1_rows={base.least_l1() + draw.choice([0, 5, 40, 4000])}",
        f"stages.prefetch.lookahead={draw.choice([1, 2, 5, 16])}",
        f"store.policy={draw.choice(['lru', 'lfu', 'lookahead'])}",
        f"stages.stream.every='{draw.choice(['1 steps', '4 steps', '2ms', '10ms'])}'",
    )
    directory, delays, get_rows = tmp_path / f"seed{seed}", RandomDelays(seed), DramTier.get_rows

    def late_get(self: DramTier, tables_n: Any, ids_n: Any, at: Any) -> Any:
        delays.block("tier read")
        return get_rows(self, tables_n, ids_n, at)

    with patch.object(DramTier, "get_rows", late_get):
        job = run_job(directory, RAGGED, *overrides, perturb=delays)
    assert_same_bits(base, job)


@pytest.mark.parametrize("seed", range(4))
def test_random_delays_change_nothing(tmp_path: Path, ragged: Job, seed: int) -> None:
    delayed_run(tmp_path, ragged, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4, 200))
def test_random_delays_change_nothing_in_the_long_form(tmp_path: Path, ragged: Job, seed: int) -> None:
    delayed_run(tmp_path, ragged, seed)


def test_evaluation_beside_training_changes_nothing(tmp_path: Path, ragged: Job) -> None:
    config = copy.deepcopy(RAGGED)
    held_out = {**config["stages"]["source"], "seed": 9, "batches": 6, "vocabulary": 4000}
    stages: dict[str, Any] = config["stages"]
    stream = stages.pop("stream")
    config["stages"] = {**stages, "eval": {"every": 5, "source": held_out}, "stream": stream}
    job = run_job(tmp_path / "run", config)
    assert [result["step"] for result in job.summary["evals"]] == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 50]
    assert_same_bits(ragged, job)


@pytest.mark.parametrize(
    ("policy", "lookahead", "queue", "stream", "mine"),
    [("lru", 1, 1, True, "train"), ("lfu", 4, 8, True, "lookup"), ("lookahead", 16, 2, False, "update")],
)
def test_globo_gives_the_same_bits(
    tmp_path: Path, globo: RealJob, policy: str, lookahead: int, queue: int, stream: bool, mine: str
) -> None:
    """From one batch's need of L1, with one stage replaced by a user's copy."""
    queues = [f"stages.{stage}.queue.items={queue}" for stage in ("prefetch", "lookup", "train", "update", "evict")]
    job = run_job(
        tmp_path / "run",
        globo.config,
        *globo.overrides,
        f"store.l1_rows={globo.base.least_l1()}",
        f"store.policy={policy}",
        f"stages.prefetch.lookahead={lookahead}",
        f"stages.stream.enabled={str(stream).lower()}",
        f"stages.{mine}.use=tests.e2e.copied_stages:My{mine.title()}",
        *queues,
    )
    assert job.summary["l1"]["evictions"] > 0
    assert_same_bits(globo.base, job)
