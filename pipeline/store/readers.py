"""Reads of a tier made by several threads at once, so that a disk is asked for the next table's rows while those of one are unpacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Read = TypeVar("Read")


class Readers:
    """``at_once`` threads, from the first call that needs them to ``close``; with one, whoever calls reads."""

    def __init__(self, at_once: int) -> None:
        self._pool = ThreadPoolExecutor(at_once, "tier-reads") if at_once > 1 else None

    def map(self, read: Callable[[Part], Read], parts: Sequence[Part]) -> Iterator[Read]:
        """What ``read`` returns of each part, in order. Take all of it. Raises what the first failing read raised, when no read
        is under way any more.
        """
        if self._pool is None or len(parts) < 2:
            yield from map(read, parts)
            return
        futures = [self._pool.submit(read, part) for part in parts]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                if not future.cancel():
                    future.exception()

    def close(self) -> None:
        """Wait for the reads under way. May be called twice."""
        if self._pool is not None:
            self._pool.shutdown()
