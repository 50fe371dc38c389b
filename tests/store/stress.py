"""A training loop on real threads with a tiny L1, and readers that take snapshots all the time, against a plain dict.

Every lookup, every snapshot and the end state are compared bit for bit. Pauses from a seed widen whatever window there is.
"""

from __future__ import annotations

import faulthandler
import queue
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from cuda.host import HostBackend
from cuda.plan import BatchIds, Int64s, UniqueIds
from pipeline.files import RealFiles
from pipeline.rowlog.checkpoint.table_reader import TableReader
from pipeline.rowlog.log import Held, Mark, RowLog, RowLogOptions, SavedRows
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rows.room import RowRoom
from pipeline.rows.version import pack_version
from pipeline.store import (
    CacheTier,
    DramTier,
    DynamicTables,
    ExpiryRule,
    Reservation,
    Snapshot,
    SnapshotAbandoned,
    SsdTier,
    Store,
    StoreError,
    Tier,
    save_changed,
)
from pipeline.store.cache_size import bytes_for
from tests.store.expiry_oracle import PlainUses
from tests.store.jobs import (
    DIMS,
    EXTREME_IDS,
    SPECS,
    TABLE_NAMES,
    empty_outs,
    ids_of,
    make_store,
    matrices,
    random_batch,
    whole_grads,
)
from tests.store.oracle import Key, Oracle

DEADLINE_S = 60.0
GENERATION = 1
FEWEST_CHECKPOINTS = 4
"""A machine so busy that training is over before goes on with them."""
TINY = RowLogOptions(segment_bytes=4096, extent_bytes=4096, write_behind_bytes=16384, max_space=1.1)


@dataclass(frozen=True)
class StressPlan:
    """One run. ``shadow_bytes`` and ``spill_bytes`` decide whether snapshots are kept, spilled, abandoned or waited for."""

    seed: int
    steps: int = 80
    l1_rows: int = 40
    num_ids: int = 60
    lookahead: int = 4
    policy: str = "lookahead"
    clean_ahead: float = 0.2
    readers: int = 2
    pause_s: float = 0.0006
    shadow_bytes: int = 1 << 20
    spill_bytes: int = 0
    spill_path: str | None = None
    dram_rows: int | None = None
    """Rows of a cache tier over the tier; None: no cache."""
    expiries_t: tuple[ExpiryRule | None, ...] = (None,) * len(SPECS)
    log_path: str | None = None
    """The tier is a row log there, of tiny segments, and checkpoints and compaction go on all the time; None: memory."""


class Pauses:
    """Sleeps now and then, from a seed."""

    def __init__(self, seed: int, longest_s: float) -> None:
        self._random, self._longest_s = random.Random(seed), longest_s

    def __call__(self) -> None:
        if self._random.random() < 0.3:
            time.sleep(self._random.random() * self._longest_s)


def pausing(base: type[Any], names: tuple[str, ...], pauses: Pauses, *arguments: Any) -> Any:
    """An object of ``base`` that pauses before and after each of those methods ``names`` that it has."""

    def around(name: str) -> Callable[..., Any]:
        def method(self: Any, *args: Any, **named: Any) -> Any:
            pauses()
            result = getattr(base, name)(self, *args, **named)
            pauses()
            return result

        return method

    twins = {name: around(name) for name in names if hasattr(base, name)}
    return type(f"Pausing{base.__name__}", (base,), twins)(*arguments)


class Stress:
    """Runs one plan; ``run`` raises the first thing that went wrong on any thread."""

    def __init__(self, plan: StressPlan) -> None:
        self.plan = plan
        self.pauses = Pauses(plan.seed, plan.pause_s)
        touched = (
            "read_rows",
            "read_rows_into",
            "write_rows",
            "update",
            "admit",
            "locate",
            "gather_pool",
            "find_distinct",
            "encode_distinct",
        )
        calls = ("get", "put", "get_rows", "put_rows", "ids")
        self.log = None if plan.log_path is None else RowLog([plan.log_path], RealFiles(), RealReads, TINY)
        tier: Tier = pausing(DramTier, calls, self.pauses)
        if self.log is not None:
            tier = pausing(SsdTier, calls, self.pauses, self.log)
        if plan.dram_rows is not None:
            tier = CacheTier(tier, bytes_for(SPECS, plan.dram_rows), plan.policy, plan.clean_ahead)
        self.store: Store = make_store(
            tier=tier,
            backend=pausing(HostBackend, touched, self.pauses, 1),
            spill_path=plan.spill_path,
            l1_rows=plan.l1_rows,
            policy=plan.policy,
            clean_ahead=plan.clean_ahead,
            shadow_bytes=plan.shadow_bytes,
            spill_bytes=plan.spill_bytes,
            dynamic=DynamicTables(TABLE_NAMES, (None,) * len(SPECS), plan.expiries_t) if any(plan.expiries_t) else None,
        )
        self.oracle = Oracle(SPECS)
        draw = np.random.default_rng(plan.seed)
        self.batches: list[tuple[BatchIds, UniqueIds]] = []
        for _ in range(plan.steps):
            batch = random_batch(draw, plan.num_ids, int(draw.integers(1, 5)))
            self.batches.append((batch, self.store.backend.deduplicate(batch)))
        self.grads = [whole_grads(draw, batch) for batch, _ in self.batches]
        self.ends = self._find_ends()
        self.no_update = set(np.flatnonzero(draw.random(plan.steps) < 0.1).tolist())
        self.room, self.stop, self.trained = threading.Event(), threading.Event(), threading.Event()
        self.in_flight = threading.Semaphore(plan.lookahead)
        self.to_load: queue.Queue[Reservation | None] = queue.Queue()
        self.loaded = [threading.Event() for _ in range(plan.steps)]
        self.reserved: queue.Queue[Reservation] = queue.Queue()
        self.to_release: queue.Queue[Reservation | None] = queue.Queue()
        self.errors: list[BaseException] = []
        self.snapshots = self.checkpoints = self.encoded = 0
        self.store.on_room(self.room.set)

    def _find_ends(self) -> list[list[Key]]:
        """Which rows end with each step."""
        uses = [None if rule is None else PlainUses(rule) for rule in self.plan.expiries_t]
        ends: list[list[Key]] = []
        for step, (batch, _) in enumerate(self.batches, start=1):
            ends.append([])
            for table, one in enumerate(uses):
                ids = [
                    i for f, of in enumerate(batch.features.tables_f.tolist()) if of == table for i in ids_of(batch, f)
                ]
                ends[-1] += [(table, row_id) for row_id in one.step(step, ids)] if one is not None else []
        return ends

    def run(self) -> Store:
        """Returns the store, closed, for its counters."""
        names = ["prefetch", "io", "io", "compute", "evict", "fetch", *["reader"] * self.plan.readers]
        if self.log is not None:
            names += ["checkpoint", "compact"]
        threads = [
            threading.Thread(
                target=self._guarded, args=(getattr(self, f"_{name}"), number), name=f"{name}-{number}", daemon=True
            )
            for number, name in enumerate(names)
        ]
        before = sys.getswitchinterval()
        sys.setswitchinterval(0.0002)
        try:
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + DEADLINE_S
            for thread in threads:
                thread.join(max(deadline - time.monotonic(), 0))
                if thread.is_alive():
                    faulthandler.dump_traceback(all_threads=True)
                    self.errors.append(TimeoutError(f"{thread.name} hangs (plan {self.plan})"))
                    self._fail()
        finally:
            sys.setswitchinterval(before)
        try:
            if self.errors:
                raise self.errors[0]
            self._check_end()
        finally:
            self.store.close()
        return self.store

    def _guarded(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            self.errors.append(error)
            self._fail()

    def _fail(self) -> None:
        self.stop.set()
        self.trained.set()
        self.room.set()
        self.in_flight.release(1000)
        self.to_load.put(None)
        self.to_load.put(None)
        self.to_release.put(None)
        for event in self.loaded:
            event.set()
        self.store._snapshots.close()

    def _prefetch(self, _number: int) -> None:
        for step, (batch, unique) in enumerate(self.batches, start=1):
            if step + 2 < len(self.batches):
                self.store.expect(step + 2, self.batches[step + 1][1])
            self.in_flight.acquire()
            while not self.stop.is_set():
                self.room.clear()
                reservation = self.store.try_reserve(step, batch, unique)
                if reservation is not None:
                    self.reserved.put(reservation)
                    self.to_load.put(reservation)
                    break
                self.room.wait(DEADLINE_S)
            self.pauses()
        self.to_load.put(None)
        self.to_load.put(None)

    def _io(self, _number: int) -> None:
        while (reservation := self.to_load.get()) is not None and not self.stop.is_set():
            self.pauses()
            self.store.read_misses(reservation)
            self.loaded[reservation.step - 1].set()

    def _compute(self, _number: int) -> None:
        for step in range(1, len(self.batches) + 1):
            self.loaded[step - 1].wait(DEADLINE_S)
            if self.stop.is_set():
                return
            reservation = self.reserved.get(timeout=DEADLINE_S)
            self._train(step, reservation)
            self.to_release.put(reservation)
        self.to_release.put(None)
        self.trained.set()

    def _train(self, step: int, reservation: Reservation) -> None:
        batch = reservation.plan.batch
        outs = empty_outs(batch)
        self.store.gather(reservation, matrices(outs))
        for out, expected in zip(outs, self.oracle.pooled(batch, step - 1), strict=True):
            assert out.tobytes() == expected.tobytes(), f"step {step} looked up other rows than step {step - 1} left"
        if step - 1 in self.no_update:
            self.oracle.end(step, self.ends[step - 1])
            self.store.skip_step(step)
            return
        self.oracle.train(step, batch, self.grads[step - 1])
        self.oracle.end(step, self.ends[step - 1])
        self.store.update(reservation, matrices(self.grads[step - 1]))
        self.pauses()

    def _evict(self, _number: int) -> None:
        while (reservation := self.to_release.get()) is not None and not self.stop.is_set():
            self.pauses()
            self.store.release(reservation)
            self.in_flight.release()
            self.store.clean_ahead()

    def _reader(self, number: int) -> None:
        draw = np.random.default_rng([self.plan.seed, number])
        while not self.trained.is_set():
            self._take(draw)

    def _compact(self, _number: int) -> None:
        assert self.log is not None
        while not self.trained.is_set():
            self.log.compact()
            self.pauses()

    def _checkpoint(self, _number: int) -> None:
        """One after the other; of each, the rows that its segments hold, two checkpoints later."""
        assert self.log is not None
        since, kept = 0, deque[tuple[SavedRows, Held, int]]()
        while not self.trained.is_set() or (self.checkpoints < FEWEST_CHECKPOINTS and not self.stop.is_set()):
            mark, snapshot = self.store.fence.at(self._begin_checkpoint)
            self.pauses()
            with snapshot:
                save_changed(self.store, snapshot, mark, since)
            since = pack_version(GENERATION, snapshot.step)
            kept.append((*mark.seal(), snapshot.step))
            self.checkpoints += 1
            self.pauses()
            if len(kept) > 2:
                saved, held, step = kept.popleft()
                self._check_saved(saved, step)
                held.release()
        for saved, _, step in kept:
            self._check_saved(saved, step)

    def _begin_checkpoint(self) -> tuple[Mark, Snapshot]:
        assert self.log is not None
        return self.log.mark(), self.store.freeze("all", blocking=True, reason="checkpoint")

    def _check_saved(self, saved: SavedRows, step: int) -> None:
        for table, spec in enumerate(SPECS):
            chunks = list(TableReader(spec, saved.tables[spec.name], RealFiles(), RealReads).rows())
            found = [row_id for chunk in chunks for row_id in chunk.ids_n.tolist()]
            assert found == self.oracle.ids(table, 0, step), f"ids of {spec.name} in the checkpoint of step {step}"
            for chunk in chunks:
                for position, row_id in enumerate(chunk.ids_n.tolist()):
                    updated, expected = self.oracle.at((table, row_id), step)
                    where = f"row {row_id} of {spec.name} in the checkpoint of step {step}"
                    assert chunk.versions_n[position] == pack_version(GENERATION, updated), where
                    assert chunk.rows_nb[position].tobytes() == expected, where

    def _take(self, draw: np.random.Generator) -> None:
        """One snapshot of a random kind, read and checked."""
        kind = ("all", "some", "changed", "all changed")[draw.integers(0, 4)]
        since = 0

        def freeze() -> Snapshot:
            nonlocal since
            step = self.store.fence.step
            blocking = bool(draw.random() < 0.5)
            if "changed" in kind:
                since = int(draw.integers(0, step + 1))
            wanted: Mapping[str, Int64s] | Literal["all"] = "all"
            if kind == "some":
                wanted = {spec.name: self._some(draw) for spec in SPECS}
            if kind == "changed":
                wanted = {spec.name: self._changed(number, since, step) for number, spec in enumerate(SPECS)}
            version = pack_version(GENERATION, since) if since else 0
            return self.store.freeze(wanted, changed_since=version, blocking=blocking, reason=kind)

        with self.store.fence.at(freeze) as snapshot:
            self.pauses()
            if kind == "all changed" and since:
                self._check_encoded(snapshot, since)
            try:
                for table in draw.permutation(len(SPECS)).tolist():
                    self._check(snapshot, table, kind, since, draw)
                self.snapshots += 1
            except SnapshotAbandoned:
                assert not snapshot.blocking

    def _fetch(self, _number: int) -> None:
        """Some rows on demand, one call after the other."""
        draw = np.random.default_rng([self.plan.seed, 99])
        while not self.trained.is_set():
            self._check_fetched(int(draw.integers(len(SPECS))), self._some(draw))
            self.pauses()

    def _check_fetched(self, table: int, ids: Int64s) -> None:
        try:
            rows = self.store.fetch_rows(SPECS[table].name, ids)
        except SnapshotAbandoned:
            return
        for position, row_id in enumerate(ids.tolist()):
            step, _ = self.oracle.at((table, row_id), rows.step)
            where = f"row {row_id} of {SPECS[table].name} fetched at step {rows.step}"
            assert rows.versions_n2[position].tolist() == ([GENERATION, step] if step else [0, 0]), where
            expected = self.oracle.weights((table, row_id), rows.step)
            assert rows.weights_nd[position].tobytes() == expected.tobytes(), where

    def _some(self, draw: np.random.Generator) -> Int64s:
        """Ids of which some were never seen, and some come twice."""
        return np.concatenate([draw.integers(3, self.plan.num_ids + 20, 12), EXTREME_IDS])

    def _changed(self, table: int, since: int, step: int) -> Int64s:
        return np.array(self.oracle.ids(table, since, step), dtype=np.int64)

    def _ended(self, table: int, since: int, step: int) -> Int64s:
        """Ids of rows that ended since, and are not there again: what a cut says is gone."""
        ended = {i for keys in self.ends[since:step] for of, i in keys if of == table}
        return np.array(sorted(ended - set(self.oracle.ids(table, 0, step))), dtype=np.int64)

    def _check(self, snapshot: Snapshot, table: int, kind: str, since: int, draw: np.random.Generator) -> None:
        name, step = SPECS[table].name, snapshot.step
        ids = snapshot.ids(name)
        if kind != "some":
            assert ids.tolist() == self.oracle.ids(table, since, step), f"{kind}: ids of {name} at step {step}"
        self.pauses()
        if "changed" in kind and since:
            ids = np.concatenate([ids, self._ended(table, since, step)])
        for part in np.array_split(draw.permutation(ids), int(draw.integers(1, 4))):
            self._compare(snapshot, table, part)
            self.pauses()

    def _compare(self, snapshot: Snapshot, table: int, ids: npt.NDArray[np.int64]) -> None:
        rows = snapshot.read(SPECS[table].name, ids)
        for position, row_id in enumerate(ids.tolist()):
            step, expected = self.oracle.at((table, row_id), snapshot.step)
            where = f"row {row_id} of {SPECS[table].name} in the {snapshot.reason} snapshot of step {snapshot.step}"
            assert rows.versions_n[position] == (pack_version(GENERATION, step) if step else 0), where
            assert rows.held_n[position] == (step > 0), where
            assert rows.rows_nb[position].tobytes() == expected, where

    def _check_encoded(self, snapshot: Snapshot, since: int) -> None:
        """What changed, encoded where it lies, if it still lies there."""
        ids_t = [self._changed(table, since, snapshot.step) for table in range(len(SPECS))]
        rooms: list[RowRoom] = []

        def make_room(counts_t: Int64s) -> RowRoom:
            count, nbytes = int(counts_t.sum()), int(counts_t @ (4 * np.array(DIMS)))
            rooms.append(RowRoom(np.empty(16 * count + nbytes, np.uint8), 0, 8 * count, 8 * count + nbytes))
            return rooms[0]

        starts_gt = np.cumsum([0, *map(len, ids_t)], dtype=np.int64)[None]
        groups = np.concatenate(ids_t), starts_gt
        if snapshot.encode(TABLE_NAMES, groups, ["fp32"] * len(SPECS), make_room) is None:
            return
        expected = [
            self.oracle.at((table, row_id), snapshot.step)
            for table in range(len(SPECS))
            for row_id in ids_t[table].tolist()
        ]
        found, versions = rooms[0].content_b[rooms[0].rows_at : rooms[0].versions_at], [step for step, _ in expected]
        assert found.tobytes() == b"".join(row for _, row in expected), f"encoded at step {snapshot.step}"
        packed = [pack_version(GENERATION, step) for step in versions]
        assert rooms[0].content_b[rooms[0].versions_at :].view(np.int64).tolist() == packed
        self.encoded += 1

    def _check_end(self) -> None:
        """Everything is at rest: the rows are the oracle's, nothing is pinned, no snapshot has left anything behind."""
        with self.store.freeze("all", blocking=True, reason="end") as snapshot:
            for table, spec in enumerate(SPECS):
                assert snapshot.ids(spec.name).tolist() == self.oracle.ids(table, 0, self.plan.steps)
                self._compare(snapshot, table, snapshot.ids(spec.name))
        stats = self.store.stats()
        assert stats["pinned"] == stats["loading"] == stats["open_snapshots"] == 0
        assert stats["shadow_bytes"] == stats["spill_bytes"] == 0
        distinct = sum(unique.count for _, unique in self.batches)
        assert stats["hits"] + stats["misses"] == distinct


def drawn_plan(seed: int, draw: np.random.Generator) -> StressPlan:
    """One of a long form's plans."""
    return StressPlan(
        seed,
        lookahead=int(draw.choice([1, 2, 4, 16])),
        policy=str(draw.choice(["lru", "lfu", "lookahead"])),
        clean_ahead=float(draw.choice([0, 0.2, 1.0])),
        readers=int(draw.choice([1, 2, 4])),
        pause_s=float(draw.choice([0, 0.0002, 0.001])),
    )


TRIES = 12


def assert_caught(sabotage: Callable[[], AbstractContextManager[None]], plan: Callable[[int], StressPlan]) -> None:
    """Within a few seeds; other tests show that runs pass when nothing is broken."""
    for seed in range(TRIES):
        with sabotage(), suppress(AssertionError, RuntimeError, StoreError):
            stress(plan(seed))
            continue
        return
    pytest.fail(f"it went unnoticed in {TRIES} runs")


def stress(plan: StressPlan) -> Store:
    """Run ``plan``; the store comes back closed."""
    return Stress(plan).run()
