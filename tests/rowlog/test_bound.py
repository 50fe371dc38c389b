"""A log with a bound on its bytes refuses what does not fit, and loses nothing."""

from __future__ import annotations

import random

import pytest

from pipeline.rowlog.log import LogFull, RowLog, RowLogOptions
from tests.files.recording import RecordingFiles
from tests.rowlog import logs
from tests.rowlog.logs import NARROW, WIDE, Model
from tests.rowlog.test_mark import Trained

SMALL = {"segment_bytes": 4096, "extent_bytes": 4096, "write_behind_bytes": 1 << 20}


def disk_bytes(log: RowLog, files: RecordingFiles) -> int:
    return sum(files.size(path) for path in logs.segment_paths(log, files))


def fill(log: RowLog, model: Model) -> None:
    for first in range(0, 10_000, 20):
        model.put(log, NARROW, range(first, first + 20))


def test_what_does_not_fit_is_refused_and_all_else_stays() -> None:
    files, model = RecordingFiles(), Model()
    options = RowLogOptions(**SMALL, bytes=300_000)
    with logs.closing(logs.log_in_memory(files, options)) as log:
        with pytest.raises(LogFull, match=r"at most 300000 bytes, .* rows of table 'narrow': raise store.ssd.bytes"):
            fill(log, model)
        refused = model.version
        for row_id, version in list(model.versions["narrow"].items()):
            assert version < refused or model.versions["narrow"].pop(row_id)
        model.check_all(log)
        assert len(model.versions["narrow"]) > 100
        log.flush()
        assert disk_bytes(log, files) == log.stats()["disk_bytes"] <= 300_000


def test_compaction_makes_room_first() -> None:
    """Rows that are put again and again need no more than the bound, however many puts."""
    files, model = RecordingFiles(), Model()
    options = RowLogOptions(**SMALL, bytes=400_000, max_space=100.0)
    with logs.closing(logs.log_in_memory(files, options)) as log:
        for number in range(120):
            model.put(log, NARROW, [row_id for row_id in range(100) if row_id % 7 != number % 7])
        assert log.stats()["compacted_rows"] > 0
        model.check_all(log)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before() -> None:
    trained = Trained(RecordingFiles(), RowLogOptions(**SMALL, bytes=150_000))
    try:
        trained.change(WIDE, range(60))
        trained.checkpoint()
        trained.change(WIDE, range(60, 200))
        trained.begin()
        with pytest.raises(LogFull, match="'wide'"):
            trained.save()
        assert trained.mark is not None
        trained.mark.abandon()
        trained.crash("drop", random.Random(0))
        assert sorted(trained.below.versions["wide"]) == list(range(60))
    finally:
        trained.log.close()


def test_the_count_is_that_of_the_files_through_checkpoints_and_crashes() -> None:
    trained, draw = Trained(RecordingFiles(), RowLogOptions(**SMALL, max_space=1.1)), random.Random(2)
    try:
        for number in range(30):
            trained.change(NARROW, range(draw.randrange(40), 60))
            trained.clean(NARROW, range(60))
            if number % 4 == 0:
                trained.checkpoint()
            trained.log.compact()
            if number % 9 == 8:
                trained.crash("drop", draw)
            with logs.standing_still(trained.log):
                assert disk_bytes(trained.log, trained.files) == trained.log.stats()["disk_bytes"]
    finally:
        trained.log.close()
