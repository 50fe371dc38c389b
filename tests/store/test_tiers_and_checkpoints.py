"""All tiers together against a plain dict: steps, snapshots, checkpoints, compaction, crashes, and going on from a checkpoint."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from cuda.host import HostBackend
from pipeline.rowlog.log import Beginning, Held, Mark, RowLog, RowLogOptions, SavedRows
from pipeline.rows.version import pack_version, unpack_versions
from pipeline.store import CacheTier, DramTier, Snapshot, SsdTier, Store, StoreOptions, Tier, save_changed
from pipeline.store.cache_size import bytes_for
from tests.files.nodes import OUTCOMES, Outcome
from tests.files.recording import RecordingFiles
from tests.rowlog.files_reads import FilesReads
from tests.rowlog.logs import DISKS, no_lock
from tests.store.jobs import FEATURES, RULES, SPECS, empty_outs, matrices, random_batch, train_step, whole_grads
from tests.store.oracle import Oracle

L1_ROWS, CACHE_ROWS, IDS, SAMPLES = 60, 64, 120, 4
LOG = RowLogOptions(segment_bytes=4096, extent_bytes=4096, write_behind_bytes=1 << 20, max_space=1.2)


class Run:
    """One life of a store, begun with a checkpoint or empty. ``layout``: memory, disk, or cache (memory over disk)."""

    def __init__(self, layout: str, files: RecordingFiles, beginning: Beginning, generation: int) -> None:
        self.log = RowLog(DISKS, files, lambda: FilesReads(files), LOG, no_lock, beginning)
        options = StoreOptions(l1_rows=L1_ROWS, clean_ahead=0.3)
        self.layout, self.files, self.generation = layout, files, generation
        self.store = Store(SPECS, RULES, FEATURES, HostBackend(1), self._tier(), options, generation=generation)
        self.store.open()
        if layout == "memory":
            self.log.open(SPECS)
        self.step = 0

    def _tier(self) -> Tier:
        if self.layout == "memory":
            return DramTier()
        disk = SsdTier(self.log)
        return disk if self.layout == "disk" else CacheTier(disk, bytes_for(SPECS, CACHE_ROWS), "lru", 0.3)

    def load(self) -> None:
        """What the log holds, into memory."""
        if self.layout == "memory":
            for spec in SPECS:
                ids_n = self.log.table(spec.name).ids()
                rows, _ = self.log.get(spec.name, ids_n)
                self.store.load_rows(spec.name, ids_n, rows.rows_nb, rows.versions_n)

    def begin_after(self, step: int) -> None:
        self.step = step
        self.load()
        self.store.fence.begin_after(step)

    def close(self) -> None:
        self.store.close()
        self.log.close()


class Taken:
    """A checkpoint that was written."""

    def __init__(self, saved: SavedRows, held: Held, step: int, generation: int) -> None:
        self.saved, self.held, self.step, self.version = saved, held, step, pack_version(generation, step)


class Life:
    """A store, what it should hold, and its checkpoints, newest first."""

    def __init__(self, layout: str) -> None:
        self.oracle = Oracle(SPECS)
        self.run = Run(layout, RecordingFiles(), Beginning(), 1)
        self.taken: list[Taken] = []
        self.open_mark: tuple[Mark, Snapshot] | None = None
        self.snapshots: list[Snapshot] = []

    def train(self, seed: int, count: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(count):
            batch = random_batch(draw, IDS, SAMPLES)
            grads = whole_grads(draw, batch)
            self.run.step += 1
            self.oracle.train(self.run.step, batch, grads)
            train_step(self.run.store, self.run.step, batch, grads)

    def look_up(self, seed: int) -> None:
        batch = random_batch(np.random.default_rng(seed), IDS, SAMPLES)
        self.run.step += 1
        store, outs = self.run.store, empty_outs(batch)
        reservation = store.try_reserve(self.run.step, batch, store.backend.deduplicate(batch))
        assert reservation is not None
        store.read_misses(reservation)
        store.gather(reservation, matrices(outs))
        for found, wanted in zip(outs, self.oracle.pooled(batch, self.run.step - 1), strict=True):
            assert found.tobytes() == wanted.tobytes()
        store.release(reservation)
        store.skip_step(self.run.step)

    def clean_ahead(self) -> None:
        self.run.store.clean_ahead()

    def compact(self, flush: bool) -> None:
        if flush:
            self.run.store.tier.flush()
        self.run.log.compact()

    def freeze(self) -> None:
        self.snapshots.append(self.run.store.freeze("all", blocking=False))

    def read_a_snapshot(self) -> None:
        with self.snapshots.pop(0) as snapshot:
            for table, spec in enumerate(SPECS):
                ids = snapshot.ids(spec.name)
                assert ids.tolist() == self.oracle.ids(table, 0, snapshot.step)
                self.compare(table, snapshot.step, ids, snapshot.read(spec.name, ids))

    def compare(self, table: int, step: int, ids: Any, rows: Any) -> None:
        steps = unpack_versions(rows.versions_n)[:, 1].tolist()
        row_bytes = SPECS[table].layout.row_bytes
        for n, row_id in enumerate(ids.tolist()):
            assert (steps[n], rows.rows_nb[n, :row_bytes].tobytes()) == self.oracle.at((table, row_id), step)

    def begin_checkpoint(self) -> None:
        store = self.run.store
        self.open_mark = store.fence.at(lambda: (self.run.log.mark(), store.freeze("all", blocking=True)))

    def end_checkpoint(self, keep: int) -> None:
        assert self.open_mark is not None
        (mark, snapshot), self.open_mark = self.open_mark, None
        with snapshot:
            save_changed(self.run.store, snapshot, mark, self.taken[0].version if self.taken else 0)
        saved, held = mark.seal()
        self.taken.insert(0, Taken(saved, held, snapshot.step, self.run.generation))
        for old in self.taken[keep:]:
            old.held.release()
        del self.taken[keep:]

    def crash(self, outcome: Outcome, seed: int, back: int) -> None:
        """Another process goes on from a checkpoint; what came after it never was."""
        with self.run.files.lock:
            files = self.run.files.after_crash(outcome, random.Random(seed))
        self.close()
        self.taken = self.taken[back:]
        kept = [taken.saved for taken in self.taken]
        self.run = Run(self.run.layout, files, Beginning(kept[0] if kept else None, kept), self.run.generation + 1)
        for taken, held in zip(self.taken, self.run.log.held, strict=True):
            taken.held = held
        step = self.taken[0].step if self.taken else 0
        self.run.begin_after(step)
        self.oracle.forget_after(step)
        self.freeze()
        self.read_a_snapshot()

    def close(self) -> None:
        for snapshot in self.snapshots:
            snapshot.close()
        if self.open_mark is not None:
            self.open_mark[1].close()
        self.snapshots, self.open_mark = [], None
        self.run.close()


class AgainstDict(RuleBasedStateMachine):
    @initialize(layout=st.sampled_from(["memory", "disk", "cache"]))
    def open(self, layout: str) -> None:
        self.life = Life(layout)

    @rule(seed=st.integers(0, 2**32), count=st.integers(1, 4))
    def train(self, seed: int, count: int) -> None:
        self.life.train(seed, count)

    @rule(seed=st.integers(0, 2**32))
    def look_up(self, seed: int) -> None:
        self.life.look_up(seed)

    @rule()
    def clean_ahead(self) -> None:
        self.life.run.store.clean_ahead()

    @rule(flush=st.booleans())
    def compact(self, flush: bool) -> None:
        self.life.compact(flush)

    @rule()
    def freeze(self) -> None:
        self.life.freeze()

    @precondition(lambda self: self.life.snapshots)
    @rule()
    def read_a_snapshot(self) -> None:
        self.life.read_a_snapshot()

    @precondition(lambda self: self.life.open_mark is None)
    @rule()
    def begin_checkpoint(self) -> None:
        self.life.begin_checkpoint()

    @precondition(lambda self: self.life.open_mark is not None)
    @rule(keep=st.integers(1, 2))
    def end_checkpoint(self, keep: int) -> None:
        self.life.end_checkpoint(keep)

    @rule(outcome=st.sampled_from(OUTCOMES), seed=st.integers(0, 9), back=st.integers(0, 1))
    def crash(self, outcome: Outcome, seed: int, back: int) -> None:
        self.life.crash(outcome, seed, back)

    def teardown(self) -> None:
        if hasattr(self, "life"):
            self.life.close()


def test_tiers_and_checkpoints_behave_like_a_dict() -> None:
    few = settings(max_examples=60, stateful_step_count=30, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(AgainstDict, settings=few)


@pytest.mark.parametrize("layout", ["memory", "disk", "cache"])
def test_a_life_with_checkpoints_under_way(layout: str) -> None:
    """The same in one go, each checkpoint with steps, evictions and compaction between its mark and its end: for sabotages."""
    life, draw = Life(layout), random.Random(1)
    try:
        for number in range(25):
            life.train(draw.randrange(1 << 30), 6)
            life.begin_checkpoint()
            life.train(draw.randrange(1 << 30), 12)
            life.run.store.clean_ahead()
            life.compact(flush=number % 5 == 4)
            life.end_checkpoint(keep=2)
            life.look_up(draw.randrange(1 << 30))
            if number % 3 == 2:
                life.crash("drop", number, back=number % 4 == 1)
        life.freeze()
        life.read_a_snapshot()
    finally:
        life.close()
