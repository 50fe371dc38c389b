"""A followed log: new files in name order, waiting cuts no batch short, late files are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.logs.errors import ChangedLog, LateFile
from stages.logs.files import LogFile
from stages.sources.walk import Walk
from tests.stages.driving import Drive, bags_of, drive_async
from tests.stages.sources.csv_logs import csv_source, write


def rows(*numbers: int) -> list[str]:
    return [f"{i},1,0,1" for i in numbers]


def follow(
    directory: Path, limit: int, state: Any = None, on_batch: Callable[[int], None] | None = None, **options: Any
) -> Drive:
    make = csv_source(directory / "*.csv", follow=True, poll_s=0.001, batch_size=2, **options)
    return asyncio.run(drive_async(make, state, limit, on_batch=on_batch))


def test_new_files_are_read_in_name_order_and_complete_the_batch_that_waits(tmp_path: Path) -> None:
    write(tmp_path / "9.csv", rows(0, 1, 2))

    def more(batches: int) -> None:
        if batches == 1:
            write(tmp_path / "10.csv", rows(3, 4))
            write(tmp_path / "11.csv", rows(5))

    done = follow(tmp_path, 3, on_batch=more)
    assert bags_of(done.batches, "user") == [[0], [1], [2], [3], [4], [5]]
    assert [batch.num_samples for batch in done.batches] == [2, 2, 2]


def test_waiting_may_begin_before_any_file_is_there(tmp_path: Path) -> None:
    async def go() -> Drive:
        make = csv_source(tmp_path / "*.csv", follow=True, poll_s=0.001, batch_size=2)
        async with asyncio.TaskGroup() as group:
            driving = group.create_task(drive_async(make, limit=1))
            await asyncio.to_thread(write, tmp_path / "1.csv", rows(1, 2))
        return driving.result()

    assert bags_of(asyncio.run(go()).batches, "user") == [[1], [2]]


def test_a_file_that_sorts_before_the_cursor_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "5.csv", rows(0, 1))

    def late(_batches: int) -> None:
        write(tmp_path / "4.csv", rows(2, 3))

    done = follow(tmp_path, 9, on_batch=late)
    assert isinstance(done.error, LateFile)
    assert "4.csv sorts before 5.csv" in str(done.error)


def test_a_resumed_log_goes_on_and_refuses_a_file_that_came_late_meanwhile(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", rows(0))
    write(tmp_path / "2.csv", rows(1, 2, 3))
    state = follow(tmp_path, 1).states[-1]
    (tmp_path / "1.csv").unlink()
    write(tmp_path / "3.csv", rows(4, 5))
    done = follow(tmp_path, 2, state)
    assert bags_of(done.batches, "user") == [[2], [3], [4], [5]]
    later = follow(tmp_path, 1, done.states[0])
    assert bags_of(later.batches, "user") == [[4], [5]]
    write(tmp_path / "1b.csv", rows(9))
    assert isinstance(follow(tmp_path, 1, state).error, LateFile)
    (tmp_path / "1b.csv").unlink()
    (tmp_path / "2.csv").unlink()
    assert isinstance(follow(tmp_path, 1, state).error, ChangedLog)


def test_a_shuffled_log_waits_for_its_window(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", rows(0, 1, 2, 3))

    def more(batches: int) -> None:
        if batches == 2:
            write(tmp_path / "2.csv", rows(4, 5, 6, 7, 8))

    done = follow(tmp_path, 4, shuffle=4, on_batch=more)
    found = [bag[0] for bag in bags_of(done.batches, "user")]
    assert (sorted(found[:4]), sorted(found[4:])) == ([0, 1, 2, 3], [4, 5, 6, 7])


def test_names_of_files_that_are_gone_are_forgotten() -> None:
    walk = Walk(follow=True)
    files = [LogFile(name, name) for name in ("1", "2", "3")]
    assert walk.begin(files, "", whole=False) == files
    for file in files:
        found = walk.next(files)
        assert found == file
        walk.take(file)
    assert walk.next(files) is None
    assert len(walk.hashes("3")) == 24
    assert walk.next(files[2:]) is None
    assert len(walk.hashes("3")) == 8
    with pytest.raises(LateFile):
        walk.next([LogFile("2b", "2b"), files[2]])
