"""The rows as they stood at one step's end."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from cuda.plan import BatchIds
from pipeline.rows.digest import rows_digest
from pipeline.rows.initial import initial_rows
from pipeline.rows.room import RowRoom
from pipeline.rows.version import pack_version
from pipeline.store import NotFrozen, Snapshot, SnapshotAbandoned, Store, UnknownTable
from pipeline.store import snapshot as snapshot_module
from pipeline.store.shadow import ROW_OVERHEAD_BYTES, Shadow
from tests.files.recording import RecordingFiles
from tests.store.jobs import (
    DIMS,
    SPECS,
    TABLE_NAMES,
    batch_of,
    make_store,
    matrices,
    reserve,
    train_step,
    whole_grads,
)
from tests.store.oracle import Oracle

DEADLINE_S = 60
ROW_BYTES = max(spec.layout.row_bytes for spec in SPECS)


class Job:
    """A store and its oracle, trained step by step on one thread over the first table."""

    def __init__(self, **options: Any) -> None:
        self.store, self.oracle, self.step = make_store(**options), Oracle(SPECS), 0
        self.random = np.random.default_rng()

    def train(self, *ids: int) -> None:
        self.step += 1
        batch = users(*ids)
        grads = whole_grads(self.random, batch)
        self.oracle.train(self.step, batch, grads)
        train_step(self.store, self.step, batch, grads)

    def check(self, snapshot: Snapshot, ids: list[int]) -> None:
        rows = snapshot.read("users", np.array(ids, dtype=np.int64))
        for position, row_id in enumerate(ids):
            step, row = self.oracle.at((0, row_id), snapshot.step)
            assert rows.rows_nb[position].tobytes() == row
            assert rows.versions_n[position] == (pack_version(1, step) if step else 0)
            assert rows.held_n[position] == (step > 0)


@pytest.fixture
def job() -> Iterator[Job]:
    job = Job()
    yield job
    job.store.close()


def users(*ids: int) -> BatchIds:
    return batch_of([[list(ids)], [[]], [[]], [[]]])


def test_rows_stay_as_they_were_while_training_goes_on(job: Job) -> None:
    job.train(1, 2, 3)
    job.train(2, 5)
    with job.store.freeze("all", blocking=True) as snapshot:
        assert (snapshot.step, snapshot.version) == (2, pack_version(1, 2))
        for _ in range(5):
            job.train(1, 2, 9)
        assert snapshot.ids("users").tolist() == [1, 2, 3, 5]
        job.check(snapshot, [5, 2, 9, 1, 3, 2, 77])


def test_several_snapshots_each_keep_their_own_step(job: Job) -> None:
    snapshots = []
    for step in range(1, 8):
        job.train(1, step % 3, 40 + step)
        snapshots.append(job.store.freeze("all", blocking=True))
    for snapshot in reversed(snapshots):
        job.check(snapshot, [1, 0, 2, *range(41, 48)])
        assert snapshot.ids("users").tolist() == job.oracle.ids(0, 0, snapshot.step)
        snapshot.close()


def test_unseen_rows_answer_with_their_initial_values_and_leave_no_trace(job: Job) -> None:
    job.train(1, 2)
    before = job.store.stats()
    unseen = np.array([99, -(2**63), -1], dtype=np.int64)
    with job.store.freeze("all", blocking=True) as snapshot:
        rows = snapshot.read("users", unseen)
        assert np.array_equal(rows.rows_nb, initial_rows(SPECS[0], unseen))
        assert not rows.held_n.any()
        assert not rows.versions_n.any()
        job.check(snapshot, [1, 2])
    after = job.store.stats()
    assert after["snapshots"].pop("snapshot") == 1
    assert after == before


def test_weights_are_the_rows_weights(job: Job) -> None:
    job.train(4)
    with job.store.freeze("all", blocking=True) as snapshot:
        weights = snapshot.weights("users", np.array([4, 4, 5]))
        assert weights.dtype == np.float32
        for row, row_id in zip(weights, (4, 4, 5), strict=True):
            assert np.array_equal(row, job.oracle.weights((0, row_id), 1))


def test_a_snapshot_of_some_rows_saves_only_those(job: Job) -> None:
    job.train(1, 2, 3)
    with job.store.freeze({"users": np.array([2, 9, 2])}, blocking=True) as snapshot:
        job.train(1, 2, 3, 9)
        job.check(snapshot, [2, 9])
        assert snapshot.ids("users").tolist() == [2, 9]
        assert snapshot.ids("items").tolist() == []
        assert snapshot.shadow.num_rows == 2
        with pytest.raises(NotFrozen, match="row 3 of table 'users' is not part of the snapshot of step 1"):
            snapshot.read("users", np.array([2, 3]))


def test_a_snapshot_of_changed_rows_covers_those_and_no_others(job: Job) -> None:
    job.train(1, 2, 3)
    job.train(3, 4)
    job.train(4, 5)
    changed = {"users": np.array([3, 4, 5])}
    with job.store.freeze(changed, changed_since=pack_version(1, 1), blocking=True) as snapshot:
        job.train(1, 3, 4, 5)
        job.check(snapshot, [3, 4, 5])
        assert snapshot.shadow.num_rows == 3
        for row in (1, 2, 8):
            with pytest.raises(NotFrozen, match=f"row {row} "):
                snapshot.read("users", np.array([row]))


def test_what_changed_since_a_step_can_be_listed(job: Job) -> None:
    for ids in ([1, 2, 3], [3, 4], [5, 1]):
        job.train(*ids)
    with job.store.freeze("all", changed_since=pack_version(1, 1), blocking=True) as snapshot:
        job.train(2, 3, 6)
        assert snapshot.ids("users").tolist() == [1, 3, 4, 5]
        job.check(snapshot, [1, 3, 4, 5])


def test_a_snapshot_before_the_first_step_is_empty(job: Job) -> None:
    with job.store.freeze("all", blocking=True) as snapshot:
        job.train(1, 2)
        assert snapshot.step == 0
        assert snapshot.ids("users").shape == (0,)
        job.check(snapshot, [1, 2, 3])


def test_rows_evicted_after_the_freeze_are_found_below() -> None:
    job = Job(l1_rows=4)
    for step in range(20):
        job.train(step, step + 1, step + 2)
    with job.store.freeze("all", blocking=True) as snapshot:
        for step in range(20):
            job.train(step, step + 30, step + 60)
        assert snapshot.ids("users").tolist() == list(range(22))
        job.check(snapshot, list(range(25)))
    job.store.close()


def test_more_rows_than_one_chunk() -> None:
    job = Job(l1_rows=6000)
    job.train(*range(6000))
    with job.store.freeze("all", blocking=True) as snapshot:
        job.train(*range(0, 6000, 3))
        job.check(snapshot, snapshot.ids("users").tolist())
    job.store.close()


def test_without_room_a_snapshot_that_may_not_hold_training_is_abandoned(job: Job) -> None:
    job.store.close()
    job = Job(shadow_bytes=room_for(2))
    job.train(1, 2, 3)
    with job.store.freeze("all", blocking=False, reason="cut") as snapshot:
        job.train(1, 2)
        job.check(snapshot, [1, 2, 3])
        job.train(3)
        with pytest.raises(
            SnapshotAbandoned, match=r"cut snapshot of step 1 was abandoned .* raise store\.shadow_bytes"
        ):
            snapshot.read("users", np.array([1]))
        with pytest.raises(SnapshotAbandoned):
            snapshot.ids("users")
        assert job.store.stats()["shadow_bytes"] == 0
    assert job.store.counters.abandoned == {"cut": 1}
    with job.store.freeze("all", blocking=False) as again:
        job.check(again, [1, 2, 3])


def test_without_room_training_waits_for_a_snapshot_that_must_not_be_lost() -> None:
    job = Job(shadow_bytes=room_for(1))
    job.train(1, 2, 3)
    snapshot = job.store.freeze("all", blocking=True, reason="checkpoint")
    job.train(1)
    waits, room = threading.Event(), job.store._snapshots.room
    wait = room.wait_for_more

    def watched(seen: int) -> None:
        waits.set()
        wait(seen)

    room.wait_for_more = watched  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as lane:
        held: Future[None] = lane.submit(job.train, 2, 3)
        assert waits.wait(DEADLINE_S)
        job.check(snapshot, [1, 2, 3])
        assert not held.done()
        assert job.store.fence.step == 2
        snapshot.close()
        held.result(DEADLINE_S)
    assert job.store.fence.step == 3
    assert job.store.counters.held_training_s.keys() == {"checkpoint"}
    assert not job.store.counters.abandoned
    job.store.close()


def room_for(rows: int) -> int:
    """What the shadow counts for so many rows."""
    return rows * (ROW_BYTES + ROW_OVERHEAD_BYTES)


def test_closing_the_store_lets_a_step_that_waits_go_on() -> None:
    job = Job(shadow_bytes=0)
    job.train(1)
    snapshot, waits, room = job.store.freeze("all", blocking=True), threading.Event(), job.store._snapshots.room
    wait = room.wait_for_more

    def watched(seen: int) -> None:
        waits.set()
        wait(seen)

    room.wait_for_more = watched  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as lane:
        held = lane.submit(job.train, 1)
        assert waits.wait(DEADLINE_S)
        job.store._snapshots.close()
        held.result(DEADLINE_S)
    with pytest.raises(RuntimeError, match="read after it was closed"):
        snapshot.read("users", np.array([1]))
    job.store.close()


def test_rows_that_memory_has_no_room_for_are_read_back_from_the_spill_file(tmp_path: Path) -> None:
    job = Job(spill_path=str(tmp_path), shadow_bytes=room_for(20))
    for start in range(0, 40, 10):
        job.train(*range(start, start + 10))
    with job.store.freeze("all", blocking=False) as snapshot:
        for start in (20, 0, 30, 10):
            job.train(*range(start, start + 10))
        assert (snapshot.shadow.num_rows, snapshot.shadow.spilled_rows) == (40, 20)
        assert job.store.stats()["spill_bytes"] == room_for(20)
        assert len(list(tmp_path.iterdir())) == 1
        job.check(snapshot, [*job.random.permutation(45).tolist(), 3, 3])
    assert job.store.counters.spilled_rows
    assert job.store.stats()["spill_bytes"] == job.store.stats()["shadow_bytes"] == 0
    assert not list(tmp_path.iterdir())
    job.store.close()


def test_a_disk_that_fails_costs_the_snapshot_and_nothing_else() -> None:
    files = RecordingFiles()
    job = Job(files=files, spill_path="/spill", shadow_bytes=room_for(10))
    job.train(*range(10))
    job.train(*range(10, 20))
    files.fail("write", code=errno.ENOSPC)
    with job.store.freeze("all", blocking=False, reason="cut") as snapshot:
        job.train(*range(10))
        job.train(*range(10, 20))
        with pytest.raises(SnapshotAbandoned, match="spill file failed"):
            snapshot.read("users", np.array([1]))
    assert job.store.counters.spill_errors == 1
    assert job.store.stats()["spill_bytes"] == 0
    with job.store.freeze("all", blocking=False) as snapshot:
        job.train(*range(10))
        job.train(*range(10, 20))
        job.check(snapshot, list(range(20)))
    job.store.close()


def test_what_a_dead_process_spilled_is_removed(tmp_path: Path) -> None:
    left, other = tmp_path / "shadow-3", tmp_path / "notes"
    left.write_bytes(b"rows")
    other.write_bytes(b"keep")
    job = Job(spill_path=str(tmp_path))
    assert not left.exists()
    assert other.exists()
    job.store.close()


def test_a_closed_snapshot_cannot_be_read_and_keeps_nothing(job: Job) -> None:
    job.train(1)
    snapshot = job.store.freeze("all", blocking=True)
    job.train(1)
    snapshot.close()
    snapshot.close()
    assert job.store.stats()["open_snapshots"] == job.store.stats()["shadow_bytes"] == 0
    with pytest.raises(RuntimeError, match="snapshot of step 1 was read after it was closed"):
        snapshot.read("users", np.array([1]))


def test_a_table_that_is_not_there_is_named(job: Job) -> None:
    with job.store.freeze("all", blocking=True) as snapshot, pytest.raises(UnknownTable, match="no table 'nobody'"):
        snapshot.read("nobody", np.array([1]))
    with pytest.raises(UnknownTable, match="no table 'nobody'"):
        job.store.freeze({"nobody": np.array([1])}, blocking=True)
    assert job.store.stats()["open_snapshots"] == 0


def test_no_ids_are_an_ordinary_question(job: Job) -> None:
    with job.store.freeze("all", blocking=True) as snapshot:
        assert snapshot.read("users", np.array([], dtype=np.int64)).rows_nb.shape == (0, SPECS[0].layout.row_bytes)
    with job.store.freeze({}, blocking=True) as snapshot:
        assert snapshot.ids("users").shape == (0,)


def test_nothing_is_compared_when_no_snapshot_is_open(job: Job) -> None:
    job.train(1)
    job.store.backend.read_versions = None  # type: ignore[method-assign,assignment]
    job.train(1)


def test_a_freeze_costs_no_copy_and_no_look_at_rows(job: Job) -> None:
    """Marking, not copying: the backend and the tier are not asked."""
    job.train(1, 2)
    backend, tier = job.store.backend, job.store.tier
    store: Store = job.store
    store._residency.backend = store._residency.tier = None  # type: ignore[assignment]
    try:
        snapshot = store._snapshots.freeze("all", None, pack_version(1, 1), 0, True, "test")
    finally:
        store._residency.backend, store._residency.tier = backend, tier
    job.train(1, 3)
    job.check(snapshot, [1, 2, 3])
    snapshot.close()


async def test_the_event_loop_is_refused(job: Job) -> None:
    snapshot = job.store._snapshots.freeze("all", None, 0, 0, True, "test")
    for call in (lambda: snapshot.read("users", np.array([1])), lambda: snapshot.ids("users")):
        with pytest.raises(RuntimeError, match="event loop"):
            call()
    snapshot.close()


def test_reading_while_a_row_is_on_its_way_gives_the_row_of_the_step(job: Job) -> None:
    """A slot is bound and its row not yet there: the reader must not take what the slot held before."""
    job.store.close()
    job = Job(l1_rows=2)
    job.train(1, 2)
    job.train(3, 4)
    batch = users(1, 5)
    reservation = job.store.try_reserve(3, batch, job.store.backend.deduplicate(batch))
    assert reservation is not None
    with job.store.freeze("all", blocking=True) as snapshot:
        job.check(snapshot, [1, 2, 3, 4, 5])
        job.store.read_misses(reservation)
        job.check(snapshot, [1, 2, 3, 4, 5])
    job.store.release(reservation)
    assert reserve(job.store, 4, users(3)).loaded


def test_rows_of_a_narrow_table_are_kept_in_as_much_memory_as_they_need(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "CHUNK_ROWS", 4)
    narrow = min(range(len(SPECS)), key=lambda table: SPECS[table].layout.row_bytes)
    row_bytes = SPECS[narrow].layout.row_bytes
    assert row_bytes < job.store.backend.row_bytes, "another table's rows are longer"
    with job.store.freeze("all", blocking=True) as snapshot:
        rows_nb = snapshot.read(SPECS[narrow].name, np.arange(20)).rows_nb
    memory = rows_nb if rows_nb.base is None else rows_nb.base
    assert (rows_nb.shape, memory.nbytes) == ((20, row_bytes), 20 * row_bytes)


class Room:
    """Makes room for the rows of a cut, and lets a test act while they are encoded."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._meanwhile = meanwhile

    def make(self, counts_t: Any) -> RowRoom:
        self.counts = counts_t.tolist()
        rows, total = sum(self.counts), sum(4 * dim * count for dim, count in zip(DIMS, self.counts, strict=True))
        self.room = RowRoom(np.zeros(16 * rows + total, np.uint8), 0, 8 * rows, 8 * rows + total)
        self._meanwhile()
        return self.room

    @property
    def ids(self) -> list[int]:
        ids: list[int] = self.room.content_b[: self.room.rows_at].view(np.int64).tolist()
        return ids


def users_only(*steps: list[int]) -> tuple[Any, Any]:
    """Ids of the first table by step, as ``Snapshot.encode`` takes them."""
    ends = np.cumsum([len(step) for step in steps])
    starts = [[end - len(step), *[end] * len(SPECS)] for end, step in zip(ends, steps, strict=True)]
    return np.array([row_id for step in steps for row_id in step], np.int64), np.array(starts, np.int64)


FP32 = ("fp32",) * len(SPECS)


def test_changed_rows_are_encoded_where_they_lie(job: Job) -> None:
    job.train(1, 2, 3)
    job.train(2, 5)
    with job.store.freeze({}, changed_since=1, blocking=True) as snapshot:
        room = Room()
        digest = snapshot.encode(TABLE_NAMES, users_only([3, 1, 2], [5, 2]), FP32, room.make)
        read = snapshot.read("users", np.array(room.ids, np.int64))
        encoded = read.rows_nb[:, : 4 * DIMS[0]]
        assert (room.ids, room.counts) == ([3, 1, 2, 5], [4, 0, 0])
        assert digest == rows_digest("users", room.ids, encoded, read.versions_n)
        assert room.room.content_b[room.room.rows_at :].tobytes() == encoded.tobytes() + read.versions_n.tobytes()


def test_rows_are_not_encoded_where_they_lie_when_a_step_writes_them_meanwhile(job: Job) -> None:
    job.train(1, 2, 3)
    batch = users(2)
    reservation = reserve(job.store, 2, batch)

    def write() -> None:
        """A step, of which the reader sees the new rows and the old versions: as where it read a version just before."""
        job.store.update(reservation, matrices(whole_grads(job.random, batch)))
        rows, versions = job.store.backend.read_rows(reservation.plan.slots_u)
        job.store.backend.write_rows(reservation.plan.slots_u, rows, np.full_like(versions, pack_version(1, 1)))

    with job.store.freeze({}, changed_since=1, blocking=True) as snapshot:
        assert snapshot.encode(TABLE_NAMES, users_only([1, 2, 3]), FP32, Room(write).make) is None
        job.check(snapshot, [1, 2, 3])
        with patch.object(Shadow, "untouched", True):  # what the answer hangs on
            assert snapshot.encode(TABLE_NAMES, users_only([1, 2, 3]), FP32, Room().make) is not None


def test_rows_are_not_encoded_where_they_lie_unless_all_are_there_and_covered(job: Job) -> None:
    job.train(1, 2)
    job.train(1)
    with job.store.freeze({}, changed_since=pack_version(1, 1), blocking=True) as snapshot:
        for ids in ([1, 77], [1, 2]):  # one that is not in L1, one that did not change
            assert snapshot.encode(TABLE_NAMES, users_only(ids), FP32, Room().make) is None
        assert snapshot.encode(TABLE_NAMES, users_only([1]), FP32, lambda _counts: None) is None
        assert snapshot.encode(TABLE_NAMES[:1], users_only([1]), FP32, Room().make) is None
        assert snapshot.encode(TABLE_NAMES, users_only([1]), FP32, Room().make) is not None
    assert snapshot.encode(TABLE_NAMES, users_only([1]), FP32, Room().make) is None
