"""A disk that fails at any call: the error reaches whoever calls next, nobody waits for ever, and no row is ever wrong."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.rowlog.errors import RowLogError
from pipeline.rowlog.log import LogClosed, LogFailed, RowLog
from pipeline.rowlog.log.records import Records
from tests.files.recording import RecordingFiles
from tests.rowlog import logs
from tests.rowlog.logs import DISKS, NARROW, SPECS, TINY, Model, ids_of

DEADLINE_S = 60
KINDS = ("create", "write", "sync", "sync_dir", "remove", "read", "size")
"""``size`` is asked when a file is opened for reading."""
AT = (1, 2, 5, 17, 40)


def live(log: RowLog, model: Model) -> None:
    """Everything that a log is asked for; raises what it raises, the model as it was before that call."""
    rng = np.random.default_rng(5)
    for step in range(30):
        for spec in SPECS:
            model.put(log, spec, rng.choice(40, 12, replace=False).tolist())
            model.check(log, spec, range(40))
        if step % 5 == 1:
            model.delete(log, SPECS[0], rng.choice(40, 9, replace=False).tolist())
        if step % 7 == 2:
            log.flush()
        if step % 10 == 3:
            log.compact()
    log.compact()
    log.flush()


def within(call: Callable[[], Any], log: RowLog) -> Any:
    """Call in a thread; whoever hangs fails."""
    with ThreadPoolExecutor(1) as other:
        future: Future[Any] = other.submit(call)
        done, _ = wait([future], DEADLINE_S)
        if not done:
            log._writer.fail(TimeoutError("the test gives up"))
            log.close()
            raise AssertionError("a call hangs")
        return future.result()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_is_told_with_the_path_and_nobody_hangs(kind: str, at: int, code: int) -> None:
    files, model = RecordingFiles(), Model()
    log = logs.log_in_memory(files)
    try:
        files.fail(kind, at=at, code=code, times=10**9)
        with pytest.raises((RowLogError, OSError)) as caught:
            within(lambda: live(log, model), log)
        assert any(disk in str(caught.value) for disk in DISKS)
        assert ".seg" in str(caught.value) or kind == "sync_dir"
        if not isinstance(caught.value, LogFailed):
            assert kind == "read", "only a read is told to its caller as it is"
        check_after(log, kind)
    finally:
        within(log.close, log)
        log.close()
    assert all(getattr(file, "_closed", False) for file in log._being_written)


def check_after(log: RowLog, kind: str) -> None:
    """A log that failed refuses everything, at once; one of which only a read failed goes on."""
    calls: list[Callable[[], Any]] = [
        lambda: log.put("narrow", ids_of([1]), NARROW.layout.empty(1), ids_of([10**6])),
        lambda: log.get("narrow", ids_of([1])),
        lambda: log.delete("narrow", ids_of([2])),
        log.flush,
        log.compact,
    ]
    if kind != "read":
        for call in calls:
            with pytest.raises(LogFailed, match="stopped writing"):
                within(call, log)


def test_a_read_that_fails_is_told_to_its_caller_and_the_log_goes_on() -> None:
    files, model = RecordingFiles(), Model()
    with logs.closing(logs.log_in_memory(files)) as log:
        model.put(log, NARROW, range(30))
        log.flush()
        files.fail("read", at=3)
        with pytest.raises(OSError, match=r"narrow-\d+\.seg") as caught:
            model.check_all(log)
        assert caught.value.errno == errno.EIO
        assert all(segment.users == 0 for segment in log.table("narrow").all_segments())
        model.check_all(log)
        model.put(log, NARROW, range(30))
        log.compact()
        model.check_all(log)


def test_a_real_read_that_comes_short_is_told_with_path_and_offset(tmp_path: Path) -> None:
    model = Model()
    with logs.closing(logs.log_on_disk(str(tmp_path))) as log:
        model.put(log, NARROW, range(30))
        log.flush()
        path = log.table("narrow").all_segments()[1].path
        os.truncate(path, 4096 + 600)
        with pytest.raises(
            OSError, match=rf"of {Records.of(NARROW).stride} bytes at offset \d+ .*narrow-\d+\.seg"
        ) as caught:
            model.check_all(log)
        assert caught.value.filename == path
        model.check(log, NARROW, range(7))


@pytest.mark.parametrize("kind", ["write", "sync", "remove"])
def test_many_callers_that_wait_are_all_told(kind: str) -> None:
    """For room, for space, and for what was queued: the disk fails under them."""
    files, model = RecordingFiles(), Model()
    options = TINY.model_copy(update={"write_behind_bytes": 4096})
    log = logs.log_in_memory(files, options)
    try:
        model.put(log, NARROW, range(70))
        log.flush()
        files.fail(kind, at=30, times=10**9)

        def put(number: int) -> None:
            other = Model()
            for _ in range(10_000):
                other.put(log, NARROW, range(number, 70))

        def flush() -> None:
            for _ in range(10_000):
                log.flush()

        with ThreadPoolExecutor(5) as pool:
            callers = [pool.submit(put, number) for number in (0, 1, 2)] + [pool.submit(flush), pool.submit(flush)]
            done, hanging = wait(callers, DEADLINE_S)
            if hanging:
                log._writer.fail(TimeoutError("the test gives up"))
            assert not hanging
        for caller in done:
            assert isinstance(caller.exception(), LogFailed), caller.exception()
    finally:
        log.close()


def test_closing_while_others_put_and_read_ends_them_all(tmp_path: Path) -> None:
    log = logs.log_on_disk(str(tmp_path))
    with ThreadPoolExecutor(4) as pool:

        def put(number: int) -> None:
            model = Model()
            while True:
                model.put(log, SPECS[number % 2], range(50))

        def get() -> None:
            while True:
                log.get("narrow", np.arange(50))

        callers: list[Future[None]] = [pool.submit(put, 0), pool.submit(put, 1), pool.submit(get), pool.submit(get)]
        while log.table("narrow").num_rows < 100:
            log.get("wide", np.arange(5))
        log.close()
        _, hanging = wait(callers, DEADLINE_S)
        if hanging:
            log._writer.fail(TimeoutError("the test gives up"))
        assert not hanging
    for caller in callers:
        assert isinstance(caller.exception(), RowLogError), caller.exception()
    with pytest.raises(LogClosed):
        log.get("narrow", np.arange(50))


def test_closing_leaves_no_file_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3):
        model = Model()
        with logs.closing(logs.log_on_disk(str(tmp_path / str(number)))) as log:
            for spec in SPECS:
                model.put(log, spec, range(25))
            log._writer.drain()
    assert len(os.listdir("/proc/self/fd")) == before
