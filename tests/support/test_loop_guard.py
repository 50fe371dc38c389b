"""The loop guard catches blocking calls on the loop, and only there."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from tests.support.loop_guard import BlockedLoop, LoopGuard


def test_a_sleep_on_the_loop_raises_and_fails_the_guard() -> None:
    async def main() -> None:
        with pytest.raises(BlockedLoop, match=r"sleep.*test_loop_guard\.py"):
            time.sleep(0)  # noqa: ASYNC251

    with pytest.raises(BlockedLoop, match="sleep"), LoopGuard():
        asyncio.run(main())


def test_opening_a_file_on_the_loop_raises(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "x").write_text("x")

    with pytest.raises(BlockedLoop, match="open"), LoopGuard():
        asyncio.run(main())


def test_the_same_calls_are_fine_in_threads_and_outside_a_loop(tmp_path: Path) -> None:
    def write() -> None:
        with open(tmp_path / "x", "wb") as file:
            file.write(b"x")
            os.fsync(file.fileno())

    async def main() -> None:
        await asyncio.to_thread(write)

    with LoopGuard() as guard:
        write()
        asyncio.run(main())
    assert guard.caught == []


def test_joining_a_live_thread_on_the_loop_raises_and_a_dead_one_does_not() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait)

    async def main() -> None:
        thread.start()
        with pytest.raises(BlockedLoop, match="join"):
            thread.join()
        go.set()

    with pytest.raises(BlockedLoop), LoopGuard():
        asyncio.run(main())
    thread.join()
    with LoopGuard():
        asyncio.run(asyncio.to_thread(thread.join))


def test_a_test_may_allow_itself_to_block(tmp_path: Path) -> None:
    with LoopGuard() as guard:

        async def main() -> None:
            with guard.allowed():
                (tmp_path / "x").write_text("x")

        asyncio.run(main())
