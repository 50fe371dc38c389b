"""Compaction keeps the space bounded and the rows right, and does no more than its share while there is room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rowlog.log import LogCorrupt, LogFailed, RowLog, RowLogOptions, compactor, garbage, table_moves
from pipeline.rowlog.log.log_table import LogTable
from pipeline.rowlog.log.records import Records
from pipeline.rowlog.log.segment import Kind, Segment
from pipeline.rowlog.log.segment_format import TRAILER_BYTES
from tests.files.recording import RecordingFiles
from tests.rowlog import logs
from tests.rowlog.logs import NARROW, SPECS, TINY, WIDE, Model, rows_of

DEADLINE_S = 60
OPTIONS = RowLogOptions(segment_bytes=4096, extent_bytes=4096, write_behind_bytes=8192, max_space=1.5)


def bytes_on_disk(log: RowLog, files: RecordingFiles) -> int:
    with files.lock:
        return sum(files.size(path) for path in logs.segment_paths(log, files))


def test_puts_that_overwrite_the_same_rows_keep_the_bytes_bounded_all_along() -> None:
    files, model, rng = RecordingFiles(), Model([NARROW]), np.random.default_rng()
    per_put, count = 20, 200
    with logs.closing(logs.log_in_memory(files, OPTIONS, [NARROW])) as log:
        held = log.table("narrow")
        per_file = 4096 + held.records.block + 16 * held.records.per_block + 40
        # Each putting call may go beyond the bound by what it brings; what is written and removed comes after.
        waiting = OPTIONS.write_behind_bytes // held.records.block * held.records.per_block
        most_rows = OPTIONS.max_space * count + held.slack_rows + 2 * per_put + waiting
        for _ in range(150):
            model.put(log, NARROW, rng.choice(count, per_put, replace=False).tolist())
            assert logs.num_records(held) <= most_rows
            # Files hold seven records; fewer where a segment was ended early, which nobody does here.
            assert len(files.list("/a") + files.list("/b")) <= most_rows / held.records.per_block + waiting
            assert bytes_on_disk(log, files) <= (most_rows / held.records.per_block + waiting) * per_file
        model.check_all(log)
        logs.check_counts(held)


def test_puts_and_deletes_of_ever_new_ids_keep_the_bytes_bounded_all_along() -> None:
    """Few rows are live, most records forget an id, and old rows that nobody overwrites stand before them."""
    files, model = RecordingFiles(), Model([NARROW])
    with logs.closing(logs.log_in_memory(files, OPTIONS, [NARROW])) as log:
        held = log.table("narrow")
        model.put(log, NARROW, range(1000, 1021))
        model.put(log, NARROW, [1000])
        most = 0
        for first in range(0, 3000, 10):
            model.put(log, NARROW, range(-first - 10, -first))
            model.delete(log, NARROW, range(-first - 9, -first))
            if first % 100:
                model.delete(log, NARROW, [-first - 10])
            most = max(most, logs.num_records(held) - held.index.count)
        model.check_all(log)
        log.compact()
        logs.check_space(log)
        assert most < held.index.count + 150, f"{most} records that nobody needs"


def test_in_the_end_nothing_is_left_of_rows_that_were_deleted() -> None:
    files, model = RecordingFiles(), Model()
    with logs.closing(logs.log_in_memory(files)) as log:
        for spec in SPECS:
            model.put(log, spec, range(300))
            model.put(log, spec, range(0, 300, 3))
            model.delete(log, spec, range(300))
        log.flush()
        log.compact()
        log.flush()
        log.compact()
        model.check_all(log)
        with logs.standing_still(log):
            assert all(logs.num_records(held) <= held.slack_rows for held in log.tables.values())
            logs.check_disk(log, files)


def test_compaction_keeps_to_its_share_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of what is put, though much more could be gained; and nobody waits."""
    monkeypatch.setattr(compactor, "BURST_BYTES", 0)
    options = RowLogOptions(
        segment_bytes=4096, extent_bytes=4096, write_behind_bytes=1 << 20, max_space=100, compaction_share=0.1
    )
    monkeypatch.setattr(compactor, "TRIGGER", 0.0)
    files, model, rng = RecordingFiles(), Model([NARROW]), np.random.default_rng()
    with logs.closing(logs.log_in_memory(files, options, [NARROW])) as log:
        put = 0
        for _ in range(200):
            ids = rng.choice(100, 10, replace=False).tolist()
            model.put(log, NARROW, ids)
            put += len(ids)
        log.flush()
        moved, capacity = log.stats()["compacted_rows"], log.table("narrow").records.per_block
        assert moved <= 0.1 * put + capacity
        assert log.stats()["put_waited_s"] == 0
        model.check_all(log)


def fill(log: RowLog, model: Model) -> None:
    """Segments of which each has something live and something stale."""
    model.put(log, NARROW, range(70))
    model.put(log, NARROW, range(0, 70, 2))
    log.flush()


QUIET = TINY.model_copy(update={"compaction_share": 1e-9, "max_space": 1000.0})
"""Nothing is compacted but when the test says so."""


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> RowLogOptions:
    monkeypatch.setattr(compactor, "TRIGGER", 1e9)
    return QUIET


def test_rows_that_change_while_they_are_moved_stay_as_they_were_put(
    quiet: RowLogOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, model, move = RecordingFiles(), Model([NARROW]), table_moves.move
    with logs.closing(logs.log_in_memory(files, quiet, [NARROW])) as log:
        fill(log, model)
        rng = np.random.default_rng()

        def change_and_move(table: LogTable, segment: Segment, ids_n: logs.Int64s, *rest: Any) -> int:
            some = rng.choice(ids_n, 2).tolist()
            with monkeypatch.context() as patch:
                patch.setattr(compactor, "move", move)
                model.put(log, NARROW, [some[0]])
                model.delete(log, NARROW, [some[1]])
            return move(table, segment, ids_n, *rest)

        monkeypatch.setattr(compactor, "move", change_and_move)
        for _ in range(20):
            segment = garbage.pick(log.table("narrow").all_segments())
            if segment is not None:
                log._compactor._move_rows(log.table("narrow"), segment)
            model.check_all(log)
            logs.check_counts(log.table("narrow"))
        monkeypatch.setattr(compactor, "move", move)
        with logs.standing_still(log):
            assert logs.read_footers(log, files, NARROW) == model.versions["narrow"]


def test_an_id_that_comes_back_while_what_forgets_it_is_moved_stays(
    quiet: RowLogOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, model, move = RecordingFiles(), Model([NARROW]), table_moves.move
    with logs.closing(logs.log_in_memory(files, quiet, [NARROW])) as log:
        model.put(log, NARROW, range(20))
        log.flush()
        model.delete(log, NARROW, range(3, 10))
        log.flush()
        model.version -= 1  # as a row that is written back with the version it had
        forgets = max(log.table("narrow").all_segments(), key=lambda one: one.dead)

        def put_and_move(*arguments: Any) -> int:
            model.put(log, NARROW, [3])
            return move(*arguments)

        monkeypatch.setattr(compactor, "move", put_and_move)
        log._compactor._move_rows(log.table("narrow"), forgets)
        model.check_all(log)
        log.flush()
        dead = [one.dead for one in log.table("narrow").all_segments()]
        assert sum(dead) == 6


def test_a_segment_stays_while_it_is_read(quiet: RowLogOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is overwritten and compacted meanwhile; the reader gets the rows that were there when he came."""
    files, model = RecordingFiles(), Model([WIDE])
    with logs.closing(logs.log_in_memory(files, quiet, [WIDE])) as log, ThreadPoolExecutor(1) as other:
        model.put(log, WIDE, range(40))
        log.flush()
        entered, go_on = threading.Event(), threading.Event()
        read = log._reads.read

        def slow(*arguments: Any) -> None:
            entered.set()
            assert go_on.wait(DEADLINE_S)
            read(*arguments)

        monkeypatch.setattr(log._reads, "read", slow)
        try:
            reading = other.submit(log.get, "wide", np.arange(40))
            assert entered.wait(DEADLINE_S)
            model.put(log, WIDE, range(40))
            log.flush()
            log.compact()
        finally:
            go_on.set()
        rows, found_n = reading.result(DEADLINE_S)
        assert found_n.all()
        assert np.array_equal(rows.rows_nb, rows_of(WIDE, np.arange(40), 1))
        log.compact()
        with logs.standing_still(log):
            logs.check_disk(log, files)
            assert logs.num_records(log.table("wide")) == 40


def told(call: Callable[[], object]) -> Exception | None:
    """What a call raises of damage."""
    try:
        call()
    except (LogCorrupt, OSError) as error:
        return error
    return None


def damaged_segment(change: Callable[[RecordingFiles, str, int], None]) -> tuple[set[int], set[int]]:
    """Damage bytes of a segment one by one; returns where get, and where the compactor, told of it."""
    told_get, told_compactor = set(), set()
    size, at = 1, 0
    while at < size:
        files, model = RecordingFiles(), Model([NARROW])
        with logs.closing(logs.log_in_memory(files, QUIET, [NARROW])) as log:
            model.put(log, NARROW, range(7))
            model.put(log, NARROW, range(100, 114))
            model.put(log, NARROW, [0, *range(100, 109)])
            log.flush()
            first = log.table("narrow").all_segments()[0]
            size = files.size(first.path)
            change(files, first.path, at)
            error = told(lambda: model.check_all(log))  # noqa: B023
            if error is not None:
                assert first.path in str(error)
                assert not isinstance(error, LogCorrupt) or HEADER <= error.offset <= at
                told_get.add(at)
            error = told(lambda: log._compactor._move_rows(log.table("narrow"), first))  # noqa: B023
            if error is not None:
                assert isinstance(error, LogCorrupt)
                assert f"{first.path} at offset {error.offset}: " in str(error)
                told_compactor.add(at)
            else:
                model.check_all(log)
        at += STEP
    return told_get, told_compactor


HEADER, STEP = 4096, 11
"""Not every byte: a log of its own for each takes long. The step has no common divisor with the size of a word."""


@pytest.mark.usefixtures("quiet")
def test_a_flipped_byte_of_a_segment_is_told_and_never_a_wrong_row() -> None:
    told_get, told_compactor = damaged_segment(lambda files, path, at: files.flip(path, at))
    stride = Records.of(NARROW).stride
    newest = range(HEADER + stride, HEADER + 7 * stride)
    assert told_get == {at for at in range(0, newest[-1] + 1, STEP) if at in newest}
    footer = range(2 * HEADER, 2 * HEADER + 7 * 16 + TRAILER_BYTES)
    assert told_compactor == told_get | {at for at in range(0, footer[-1] + 1, STEP) if at in footer}


@pytest.mark.usefixtures("quiet")
def test_a_segment_that_is_cut_anywhere_is_told_and_never_a_wrong_row() -> None:
    told_get, told_compactor = damaged_segment(lambda files, path, at: files.truncate(path, at))
    assert told_compactor >= told_get
    assert len(told_compactor) == max(told_compactor) // STEP + 1


def test_a_segment_that_was_replaced_by_another_is_told(quiet: RowLogOptions) -> None:
    files, model = RecordingFiles(), Model([NARROW])
    with logs.closing(logs.log_in_memory(files, quiet, [NARROW])) as log:
        model.put(log, NARROW, range(21))
        model.put(log, NARROW, [0, 7, 14])
        log.flush()
        one, _, other, *_ = log.table("narrow").all_segments()
        data = files.read(other.path)
        files.remove(one.path)
        files.create(one.path).write(data)
        with pytest.raises(LogCorrupt, match=one.path):
            model.check(log, NARROW, [1])
        with pytest.raises(LogCorrupt, match=one.path):
            log._compactor._move_rows(log.table("narrow"), one)


def test_damage_that_compaction_finds_in_the_background_is_told_to_whoever_comes_next() -> None:
    files, model = RecordingFiles(), Model([NARROW])
    with logs.closing(logs.log_in_memory(files, OPTIONS, [NARROW])) as log:
        model.put(log, NARROW, range(70))
        log.flush()
        for path in logs.segment_paths(log, files):
            files.flip(path, files.size(path) - 1)

        def put_on_and_on() -> None:
            for first in range(10_000):
                model.put(log, NARROW, [row_id for row_id in range(70) if row_id % 7 != first % 7])

        with pytest.raises(LogFailed, match=r"\.seg at offset \d+: the segment was not sealed, or its end was changed"):
            put_on_and_on()


SEGMENTS = st.lists(
    st.tuples(
        st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(1, 12), st.booleans(), st.booleans()
    ),
    min_size=1,
    max_size=8,
)


@given(drawn=SEGMENTS)
def test_what_is_picked_has_something_to_drop_and_something_is_picked_while_there_is(
    drawn: list[tuple[int, int, int, int, bool, bool]],
) -> None:
    segments = [
        Segment(number, "", Kind.PUT, live + dead + stale, live, dead, below, int(pinned), sealed=sealed)
        for number, (live, dead, stale, below, pinned, sealed) in enumerate(drawn, 1)
        if live + dead + stale
    ]
    picked = garbage.pick(segments)
    can_drop = [one for one in segments if one.stale or (one.dead and not garbage.is_forgetting(one, segments))]
    movable = [one for one in can_drop if one.sealed and one.live + one.dead]
    assert (picked is None) == (not movable)
    assert picked is None or picked in movable
    if all(one.sealed for one in segments) and any(one.stale + one.dead for one in segments):
        assert can_drop, "dead records wait for each other"


def test_dead_records_do_not_wait_for_themselves() -> None:
    one, two = Segment(1, "", Kind.PUT, 9, 3, 3, 5), Segment(2, "", Kind.PUT, 9, 3, 6, 5)
    assert garbage.is_forgetting(two, [one, two])
    assert not garbage.is_forgetting(one, [one, two])
