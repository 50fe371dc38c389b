"""A checkpoint of the log holds the rows of one moment, whatever is put, deleted and compacted while it is written."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from pipeline.rowlog.log import Beginning, Held, LogCorrupt, Mark, RowLog, RowLogOptions, SavedRows
from pipeline.rowlog.log.segment import Kind
from pipeline.rows import TableSpec
from tests.files.nodes import OUTCOMES, Outcome
from tests.files.recording import RecordingFiles
from tests.rowlog import logs
from tests.rowlog.files_reads import FilesReads
from tests.rowlog.logs import DISKS, NARROW, SPECS, Model, ids_of, rows_of

Versions = dict[str, dict[int, int]]
IDS = st.integers(-3, 60)
MOST = [row_id for row_id in range(1000) if row_id % 5]
"""All but some of each segment."""
OPTIONS = st.builds(
    RowLogOptions,
    segment_bytes=st.sampled_from([4096, 16384]),
    extent_bytes=st.just(4096),
    write_behind_bytes=st.just(1 << 20),
    max_space=st.sampled_from([1.1, 1.5, 100.0]),
)


class Trained:
    """A log with a tier above it, as training has them: rows change above, and go down at any time later."""

    def __init__(self, files: RecordingFiles, options: RowLogOptions) -> None:
        self.files, self.options = files, options
        self.log = logs.log_in_memory(files, options)
        self.below = Model()
        self.dirty: Versions = {spec.name: {} for spec in SPECS}
        self.mark: Mark | None = None
        self.frozen: Versions = {}
        self.gone: dict[str, set[int]] = {spec.name: set() for spec in SPECS}
        """Deleted since the mark."""
        self.since = 0
        self.saved: list[tuple[SavedRows, Held, Versions, int]] = []
        """Newest first: what checkpoints hold, and should hold, and their versions."""

    def now(self) -> Versions:
        return {spec.name: {**self.below.versions[spec.name], **self.dirty[spec.name]} for spec in SPECS}

    def change(self, spec: TableSpec, ids: Sequence[int]) -> None:
        self.below.version += 1
        self.dirty[spec.name].update(dict.fromkeys(ids, self.below.version))

    def clean(self, spec: TableSpec, ids: Sequence[int]) -> None:
        dirty, held = self.dirty[spec.name], self.below.versions[spec.name]
        for version in set(dirty.values()):
            some = ids_of([row_id for row_id in ids if dirty.get(row_id) == version])
            self.log.put(spec.name, some, rows_of(spec, some, version), np.full(len(some), version))
        held.update({row_id: dirty.pop(row_id) for row_id in ids if row_id in dirty})

    def delete(self, spec: TableSpec, ids: Sequence[int]) -> None:
        for row_id in ids:
            self.dirty[spec.name].pop(row_id, None)
        self.below.delete(self.log, spec, ids)
        self.gone[spec.name] |= set(ids)

    def begin(self) -> None:
        self.mark, self.frozen, self.at = self.log.mark(), self.now(), self.below.version
        self.gone = {spec.name: set() for spec in SPECS}

    def save(self) -> None:
        """What was dirty at the mark is dirty still, or was put since. Of these, what changed since the last checkpoint."""
        assert self.mark is not None
        for spec in SPECS:
            found = set(self.dirty[spec.name])
            for ids_n in self.mark.put_since(spec.name):
                found |= set(ids_n.tolist())
            frozen = self.frozen[spec.name]
            for version in sorted({frozen.get(row_id, 0) for row_id in found}):
                if version > self.since:
                    some = ids_of(sorted(row_id for row_id in found if frozen.get(row_id) == version))
                    self.mark.save(spec.name, some, rows_of(spec, some, version), np.full(len(some), version))
                    held, gone = self.below.versions[spec.name], self.gone[spec.name]
                    held.update(
                        {row_id: max(version, held.get(row_id, 0)) for row_id in some.tolist() if row_id not in gone}
                    )

    def end(self, keep: int = 2) -> None:
        assert self.mark is not None
        saved, held = self.mark.seal()
        self.saved.insert(0, (saved, held, self.frozen, self.at))
        self.mark, self.since = None, self.at
        for _, old, _, _ in self.saved[keep:]:
            old.release()
        del self.saved[keep:]

    def checkpoint(self) -> None:
        self.begin()
        self.save()
        self.end()

    def check(self) -> None:
        self.below.check_all(self.log)
        for held in self.log.tables.values():
            logs.check_counts(held)

    def crash(self, outcome: Outcome, rng: random.Random, back: int = 0) -> None:
        """The process dies; another one goes on from a checkpoint, if there is one."""
        with self.files.lock:
            files = self.files.after_crash(outcome, rng)
        self.log.close()
        self.files, self.mark = files, None
        checkpoints = self.saved[back:]
        kept = [saved for saved, _, _, _ in checkpoints]
        beginning = Beginning(kept[0] if kept else None, kept)
        self.log = RowLog(DISKS, files, lambda: FilesReads(files), self.options, logs.no_lock, beginning)
        self.log.open(SPECS)
        held = self.log.held
        assert len(held) == len(checkpoints)
        self.saved = [
            (saved, new, versions, at) for (saved, _, versions, at), new in zip(checkpoints, held, strict=True)
        ]
        self.since = checkpoints[0][3] if checkpoints else 0
        versions = checkpoints[0][2] if checkpoints else {spec.name: {} for spec in SPECS}
        self.below.versions = {name: dict(held) for name, held in versions.items()}
        self.dirty = {spec.name: {} for spec in SPECS}
        self.check()


class AgainstDict(RuleBasedStateMachine):
    @initialize(options=OPTIONS)
    def open(self, options: RowLogOptions) -> None:
        self.trained = Trained(RecordingFiles(), options)

    @rule(spec=st.sampled_from(SPECS), first=IDS, count=st.integers(1, 60))
    def change(self, spec: TableSpec, first: int, count: int) -> None:
        self.trained.change(spec, range(first, first + count))

    @rule(spec=st.sampled_from(SPECS), first=IDS, count=st.integers(1, 60))
    def clean(self, spec: TableSpec, first: int, count: int) -> None:
        self.trained.clean(spec, range(first, first + count))

    @rule(spec=st.sampled_from(SPECS), first=IDS, count=st.integers(1, 40))
    def delete(self, spec: TableSpec, first: int, count: int) -> None:
        self.trained.delete(spec, range(first, first + count))

    @rule(flush=st.booleans())
    def compact(self, flush: bool) -> None:
        if flush:
            self.trained.log.flush()
        self.trained.log.compact()

    @precondition(lambda self: self.trained.mark is None)
    @rule()
    def begin(self) -> None:
        self.trained.begin()

    @precondition(lambda self: self.trained.mark is not None)
    @rule(keep=st.integers(1, 3))
    def end(self, keep: int) -> None:
        self.trained.save()
        self.trained.end(keep)

    @precondition(lambda self: self.trained.mark is not None)
    @rule()
    def abandon(self) -> None:
        assert self.trained.mark is not None
        self.trained.mark.abandon()
        self.trained.mark = None

    @rule()
    def look(self) -> None:
        self.trained.check()

    @rule(outcome=st.sampled_from(OUTCOMES), seed=st.integers(0, 9), back=st.integers(0, 1))
    def crash(self, outcome: Outcome, seed: int, back: int) -> None:
        self.trained.crash(outcome, random.Random(seed), back)

    def teardown(self) -> None:
        if hasattr(self, "trained"):
            with logs.closing(self.trained.log):
                self.trained.check()
                with logs.standing_still(self.trained.log):
                    check_files(self.trained)


def check_files(trained: Trained) -> None:
    """The files are those that the log or a checkpoint needs."""
    tables = trained.log.tables.values()
    known = {segment.path for held in tables for segment in held.all_segments(kept=True)}
    assert set(logs.segment_paths(trained.log, trained.files)) == known
    if trained.mark is None:
        named = {segment.path for saved, _, _, _ in trained.saved for segment in saved.all_segments()}
        needed = {segment.path for held in tables for segment in held.all_segments()}
        assert known == named | needed
        assert named <= known


def test_it_behaves_like_a_dict_through_checkpoints_and_crashes() -> None:
    few = settings(max_examples=150, stateful_step_count=40, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(AgainstDict, settings=few)


def test_a_life_with_checkpoints() -> None:
    """The same in one go: for sabotages."""
    options = RowLogOptions(segment_bytes=4096, extent_bytes=4096, write_behind_bytes=1 << 20, max_space=1.1)
    trained, rng = Trained(RecordingFiles(), options), random.Random(0)
    try:
        for step in range(160):
            live(trained, rng, step)
            if step % 50 == 49:
                trained.crash("drop", rng, back=step % 2)
            trained.check()
        with logs.standing_still(trained.log):
            check_files(trained)
    finally:
        trained.log.close()


def live(trained: Trained, rng: random.Random, step: int) -> None:
    spec, first, count = SPECS[step % 2], rng.randrange(50), rng.randrange(1, 40)
    trained.change(spec, range(first, first + count))
    trained.clean(spec, range(rng.randrange(50), 60))
    if step % 16 == 3:
        trained.begin()
    if step % 16 == 6:
        trained.delete(spec, range(first, first + 9))
    if step % 16 == 9 and trained.mark is not None:
        trained.save()
        trained.change(spec, range(0, 60, 7))
        trained.clean(spec, range(30))
        trained.end()
    if step % 11 == 0:
        trained.log.compact()


@contextmanager
def mostly_overwritten() -> Iterator[Trained]:
    """A checkpoint, and then each of its segments has only a few rows left: there is much to move."""
    trained = Trained(RecordingFiles(), RowLogOptions(segment_bytes=65536, extent_bytes=4096, max_space=1.01))
    try:
        trained.change(NARROW, range(1000))
        trained.checkpoint()
        trained.change(NARROW, MOST)
        trained.clean(NARROW, MOST)
        yield trained
    finally:
        trained.log.close()


def test_a_row_that_compaction_moved_since_the_mark_is_older_than_the_saved_one() -> None:
    """The log's own thread may have moved all there was before the mark: then once more."""
    for _ in range(20):
        with mostly_overwritten() as trained:
            trained.change(NARROW, range(0, 1000, 10))
            trained.begin()
            before = trained.log.stats()["compacted_rows"]
            trained.log.compact()
            moved = trained.log.stats()["compacted_rows"] > before
            trained.save()
            trained.end()
            trained.check()
            trained.crash("drop", random.Random(0))
        if moved:
            return
    pytest.fail("compaction moved no row after a mark")


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(("put", "newest"), [(2, 3), (3, 3), (5, 5)], ids=["older", "same", "younger"])
def test_what_was_put_since_the_mark_may_be_older_than_the_saved_row(sealed: bool, put: int, newest: int) -> None:
    """Memory over the disk may put down what it holds of a row that lies, younger, in L1, where the checkpoint finds it."""
    ids = ids_of(range(20))

    def versions(version: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.full(len(ids), version)

    with logs.closing(logs.log_in_memory(RecordingFiles())) as log:
        log.put("narrow", ids, rows_of(NARROW, ids, 1), versions(1))
        mark = log.mark()
        log.put("narrow", ids, rows_of(NARROW, ids, put), versions(put))
        if sealed:
            log.flush()
        mark.save("narrow", ids, rows_of(NARROW, ids, 3), versions(3))
        _, held = mark.seal()
        held.release()
        rows, found_n = log.get("narrow", ids)
        assert found_n.all()
        assert set(rows.versions_n.tolist()) == {newest}
        assert rows.rows_nb.tobytes() == rows_of(NARROW, ids, newest).tobytes()


def test_the_newest_record_may_lie_in_the_older_segment() -> None:
    """A segment that takes puts, begun before the one that takes what compaction moves, and filled longer."""
    with mostly_overwritten() as trained:
        trained.log.compact()
        filling = {one.kind: one.number for one in trained.log.table("narrow").all_segments() if not one.sealed}
        assert filling[Kind.PUT] < filling[Kind.MOVED]
        trained.change(NARROW, range(0, 1000, 10))
        trained.clean(NARROW, range(0, 1000, 10))
        trained.checkpoint()
        trained.crash("drop", random.Random(0))


def test_a_checkpoint_writes_what_changed_and_no_more() -> None:
    options = RowLogOptions(segment_bytes=1 << 20, extent_bytes=65536, max_space=100.0)
    trained = Trained(RecordingFiles(), options)
    with logs.closing(trained.log) as log:
        trained.change(NARROW, range(5000))
        trained.checkpoint()
        before = log.stats()["written_bytes"]
        trained.change(NARROW, range(50))
        trained.checkpoint()
        assert 0 < log.stats()["written_bytes"] - before < before * 0.03


def test_a_row_that_never_changes_does_not_hold_its_segment_for_ever() -> None:
    """Its segment is named again and again; compaction takes the row out of it all the same."""
    options = RowLogOptions(segment_bytes=4096, extent_bytes=4096, max_space=1.1)
    trained = Trained(RecordingFiles(), options)
    with logs.closing(trained.log) as log:
        trained.change(NARROW, range(200))
        trained.checkpoint()
        for _ in range(12):
            trained.change(NARROW, [row_id for row_id in range(200) if row_id % 7])
            trained.checkpoint()
            log.compact()
        held = log.table("narrow")
        most = 2 * (1.1 * 200 + held.slack_rows)
        assert sum(segment.num_rows for segment in held.all_segments(kept=True)) <= most + 200


@pytest.mark.parametrize("where", ["header", "footer", "end"])
def test_a_damaged_segment_is_told_when_the_log_is_opened(where: str) -> None:
    trained = Trained(RecordingFiles(), RowLogOptions(segment_bytes=4096, extent_bytes=4096))
    trained.change(NARROW, range(40))
    trained.checkpoint()
    trained.log.close()
    saved = trained.saved[0][0]
    sealed = saved.tables["narrow"].segments[2]
    files = trained.files
    if where == "end":
        files.truncate(sealed.path, sealed.size - 7)
    else:
        files.flip(sealed.path, 30 if where == "header" else sealed.size - 60)
    log = RowLog(DISKS, files, lambda: FilesReads(files), trained.options, logs.no_lock, Beginning(saved, [saved]))
    with pytest.raises(LogCorrupt, match=f"{sealed.path} at offset"):
        log.open(SPECS)
    log.close()
