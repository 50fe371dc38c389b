"""All rows that one call returns are of one step, while training goes on: of a fetch, of an export, of a cut of the stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cuda.backend import UpdateRule
from cuda.host import HostBackend
from cuda.plan import SlotPlan
from pipeline.flow.run_info import RunInfo
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.rows.version import steps_of
from pipeline.session.row_source import StoreRowSource
from pipeline.store import Store, StoreOptions
from pipeline.stream import RowStreamer, StreamIdentity
from pipeline.wire import CommitFrame, RowsFrame, decode_frame
from tests.store.fetching import WAYS, force
from tests.store.jobs import FEATURES, SPECS, TABLE_NAMES, batch_of, matrices, reserve
from tests.store.tiers import TIERS, make_tier
from tests.stream.list_transport import ListTransport

BLOCKS, BLOCK = 8, 64
ROWS = BLOCKS * BLOCK
LOOK_S = 0.1
"""How often one who waits for a step looks whether there will be one."""
PLAIN = tuple(
    TableSpec(
        spec.name,
        RowLayout((Column("weight", "float32", spec.dim, "weight"), Column("momentum", "float32", spec.dim, "state"))),
        Initializer("zeros"),
        1,
    )
    for spec in SPECS
)


@pytest.fixture(params=TIERS)
def tier_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=WAYS)
def counting(
    request: pytest.FixtureRequest, tier_kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """Step s adds 1 to the state of each row of block s % BLOCKS; L1 holds three blocks."""
    force(request.param, monkeypatch)
    rules = (UpdateRule("adagrad", (1.0, 1e-8)),) * len(PLAIN)
    options = StoreOptions(l1_rows=3 * BLOCK, policy="lru")
    tier, spill = make_tier(tier_kind, tmp_path), str(tmp_path / "spill")
    store = Store(PLAIN, rules, FEATURES, HostBackend(1), tier, options, spill_path=spill)
    store.open()
    yield store
    copied = store.counters.copied_at_fence
    assert copied == 0 if request.param == "by snapshots" else copied > 0 or tier_kind != "dram"
    store.close()


class Readers:
    """Four of them: two fetch, one lists and reads all rows as an export does, one publishes cuts. Training goes on until they have
    read ``lookups`` rows together, at least.
    """

    def __init__(self, store: Store, lookups: int) -> None:
        self.store, self.left = store, lookups
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.read = dict.fromkeys(("fetch", "export", "stream"), 0)
        self.weights: dict[int, bytes] = {}
        """A row's weights by how often it was updated."""
        self.transport = ListTransport()
        source = StoreRowSource(store, store.specs, torch.nn.Linear(1, 1), RunInfo("run", Path(), 0, store.generation))
        self.streamer = RowStreamer(
            source.with_tables("fp32"), self.transport, StreamIdentity("run", "trainer", store.generation)
        )
        self.streamer.open()
        store.on_step(self.tell)

    def tell(self, step: int, plan: SlotPlan | None) -> None:
        assert plan is not None
        bounds = plan.unique.table_start_t.tolist()
        ids = {name: plan.unique.ids_u[bounds[t] : bounds[t + 1]] for t, name in enumerate(TABLE_NAMES)}
        self.streamer.add(step, step, ids)

    def run(self) -> None:
        with ThreadPoolExecutor(5) as pool:
            training = pool.submit(train_until, self.store, self.ended)
            training.add_done_callback(lambda _: self.ended.set())
            readers = [pool.submit(read) for read in (self.fetch, self.fetch, self.export, self.stream)]
            try:
                for reader in readers:
                    reader.result()
            finally:
                self.ended.set()
            assert training.result() > 2 * BLOCKS
        assert all(self.read.values()), self.read
        assert self.store.counters.evictions > 0

    def more(self, who: str, count: int) -> bool:
        """Count rows that were read; whether to go on. Each reads something, however fast the others are."""
        with self.lock:
            self.left -= count
            self.read[who] += count
            return self.left > 0 and not self.ended.is_set()

    def check(self, ids_n: Any, step: int, weights_nd: Any, versions_n: Any) -> None:
        """Rows of users, all as ``step`` left them."""
        times_n = times_updated(ids_n, step)
        last_n = np.where(times_n > 0, step - (step - ids_n // BLOCK) % BLOCKS, 0)
        assert (versions_n == last_n).all(), f"not all rows are those of step {step}"
        for times in np.unique(times_n).tolist():
            some = weights_nd[times_n == times]
            assert (some == some[0, 0]).all(), f"rows of step {step} that were updated {times} times differ"
            with self.lock:
                known = self.weights.setdefault(times, some[0].tobytes())
            assert known == some[0].tobytes(), f"rows of step {step} are not those that were updated {times} times"

    def fetch(self) -> None:
        random, going = np.random.default_rng(), True
        while going:
            ids_n = random.integers(0, ROWS, 4096)
            rows = self.store.fetch_rows("users", ids_n)
            assert (rows.states["momentum"] == times_updated(ids_n, rows.step)[:, None]).all()
            self.check(ids_n, rows.step, rows.weights_nd, rows.versions_n2[:, 1])
            going = self.more("fetch", len(ids_n))

    def export(self) -> None:
        layout, going = self.store.specs[0].layout, True
        while going:
            with self.store.freeze("all", blocking=True, reason="export") as snapshot:
                ids_n = snapshot.ids("users")
                rows = snapshot.read("users", ids_n)
            assert ids_n.tolist() == updated_between(0, snapshot.step)
            state_nd = layout.view(rows.rows_nb, "momentum")
            assert (state_nd == times_updated(ids_n, snapshot.step)[:, None]).all()
            self.check(ids_n, snapshot.step, layout.view(rows.rows_nb, "weight"), steps_of(rows.versions_n))
            going = self.more("export", len(ids_n))

    def stream(self) -> None:
        """Each cut holds the rows that changed since the one before, and no others, as its step left them."""
        before, going = 0, True
        while going:
            if not self.store.fence.wait(before + 1, LOOK_S):
                going = not self.ended.is_set()
                continue
            self.transport.frames.clear()
            if self.streamer.cut() is None:
                continue  # old rows found no room: the next cut has them
            frames = [decode_frame(data) for data in self.transport.frames]
            (commit,) = (frame for frame in frames if isinstance(frame, CommitFrame))
            parts = [part for frame in frames if isinstance(frame, RowsFrame) for part in frame.rows]
            ids_n = np.concatenate([part.ids_n for part in parts])
            assert {part.table for part in parts} == {"users"}
            assert sorted(ids_n.tolist()) == updated_between(before, commit.step)
            for part in parts:
                self.check(part.ids_n, commit.step, part.rows_nb.view(np.float32), steps_of(part.versions_n))
            before = commit.step
            going = self.more("stream", len(ids_n))


def times_updated(ids_n: Any, step: int) -> Any:
    """How many of the steps 1 .. step were those of each id's block."""
    block_n = ids_n // BLOCK
    return (step - block_n) // BLOCKS + (block_n != 0)


def updated_between(before: int, step: int) -> list[int]:
    """Rising."""
    ids_n = np.arange(ROWS)
    found: list[int] = ids_n[times_updated(ids_n, step) > times_updated(ids_n, before)].tolist()
    return found


def train_until(store: Store, ended: threading.Event) -> int:
    nothing: list[list[int]] = [[]] * BLOCK
    batches = [
        batch_of([[[i] for i in range(b * BLOCK, (b + 1) * BLOCK)], nothing, nothing, nothing]) for b in range(BLOCKS)
    ]
    step = 0
    while not ended.is_set():
        step += 1
        batch = batches[step % BLOCKS]
        grads = [
            np.ones((BLOCK if f == 0 else 0 if pooling else BLOCK, int(dim)), np.float32)
            for f, (pooling, dim) in enumerate(zip(FEATURES.poolings_f.tolist(), FEATURES.dims_f.tolist(), strict=True))
        ]
        reservation = reserve(store, step, batch)
        store.update(reservation, matrices(grads))
        store.release(reservation)
        store.clean_ahead()
    return step


def test_all_rows_of_one_call_are_of_one_step(counting: Store) -> None:
    Readers(counting, 300_000).run()


@pytest.mark.long
def test_ten_million_lookups(counting: Store) -> None:
    Readers(counting, 10_000_000).run()
