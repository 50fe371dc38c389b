"""Follows the segments of a stream, in this process or another.

At the end of the last segment a reader waits; bytes that do not yet make a record are the writer's business until a
later segment exists. Anything else that is not a whole record is damage, and is reported with its segment and offset.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.files import is_locked
from pipeline.wire.errors import PositionBeyondEnd, StreamCorrupt, StreamTrimmed, TransportClosed
from pipeline.wire.growth import Growth
from pipeline.wire.segments import SegmentDirectory, read_records
from pipeline.wire.transport import Position
from pipeline.wire.watch import DirectoryWatch

Records = list[tuple[Position, bytes]]
QUIET_LOOKS = 20
"""After so many looks in vain, a reader looks QUIET_FACTOR times less often: a wake-up costs up to 0.1 ms of CPU."""
QUIET_FACTOR = 8
DEAF_FINDS = 3
"""A watch that so many finds in a row were not told by is given up: its file system does not tell."""
MakeWatch = Callable[[str], DirectoryWatch | None]


class SegmentReader:
    """One subscription. Where ``make_watch`` gives a watch of the directory, it tells of all writers, and a look every
    ``QUIET_FACTOR * poll_s`` makes sure. Elsewhere ``growth`` tells of writers in this process, and others are noticed by stat,
    every ``poll_s`` while the stream flows.
    """

    def __init__(
        self,
        directory: SegmentDirectory,
        position: Position | None,
        growth: Growth,
        *,
        poll_s: float,
        read_bytes: int,
        max_payload_bytes: int,
        make_watch: MakeWatch | None = None,
    ) -> None:
        self._directory = directory
        self._position = position
        self._anywhere = position is None
        self._growth = growth
        self._poll_s = poll_s
        self._read_bytes = read_bytes
        self._max_payload_bytes = max_payload_bytes
        self._vain_looks = 0
        self._make_watch = make_watch
        self._watch: DirectoryWatch | None = None
        self._told, self._untold_finds = True, 0
        self._closed = False

    def next(self, timeout: float | None) -> Records | None:
        """See ``transport.Subscription``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            seen = self._growth.count
            if self._closed:
                raise TransportClosed(f"{self._directory.path}: the subscription was closed")
            if records := self._read():
                self._anywhere, self._vain_looks = False, 0
                self._trust_watch()
                return records
            self._vain_looks += 1
            quiet = self._watch is not None or self._vain_looks >= QUIET_LOOKS
            wait_s = self._poll_s * (QUIET_FACTOR if quiet else 1)
            if deadline is not None:
                wait_s = min(wait_s, deadline - time.monotonic())
            if wait_s <= 0:
                return None
            self._wait(seen, wait_s)

    def _wait(self, seen: int, wait_s: float) -> None:
        if self._watch is not None:
            self._told = self._watch.wait(wait_s)
        elif self._make_watch is not None and (watch := self._make_watch(self._directory.path)) is not None:
            self._watch, self._told = watch, True  # what came before it is found by one more look
            if self._closed:
                watch.close()
        else:
            self._growth.wait(seen, wait_s)

    def _trust_watch(self) -> None:
        """Something was found. A write may come between the end of a wait and the look that finds it; not each time, though."""
        self._untold_finds = 0 if self._told else self._untold_finds + 1
        self._told = True  # until the next wait says otherwise
        if self._watch is not None and self._untold_finds == DEAF_FINDS:
            self._watch.close()
            self._watch = self._make_watch = None

    def check_end(self) -> None:
        """See ``transport.Subscription``."""
        directory, position = self._directory, self._position
        # In this order: without a writer the segment does not grow between the two looks.
        if position is None or is_locked(directory.path):
            return
        path = directory.segment_path(position.segment)
        size = directory.files.size(path)
        scan = read_records(directory.files, path, position.offset, size, self._read_bytes, self._max_payload_bytes)
        if size > position.offset and not scan.payloads:
            raise StreamCorrupt(
                path, position.segment, position.offset, "the last record is cut short, and no run goes on writing it"
            )

    def close(self) -> None:
        self._closed = True
        self._growth.notify()
        if (watch := self._watch) is not None:
            watch.close()

    def _read(self) -> Records:
        """The next whole records, none when there are none yet."""
        try:
            while (position := self._locate()) is not None:
                following = Position(position.segment + 1, 0)
                # Asked before the size: the segment before an existing one does not grow any more.
                sealed = self._exists(following)
                size = self._directory.files.size(self._directory.segment_path(position.segment))
                if size < position.offset:
                    end = Position(position.segment, size)
                    raise PositionBeyondEnd(self._directory.path, str(position), str(end))
                if size > position.offset:
                    return self._records(position, size, sealed)
                if not sealed:
                    return []
                self._position = following
        except FileNotFoundError:
            self._explain_missing()
            if self._position is None and self._directory.numbers():
                return self._read()  # what it would have begun with was trimmed; there is more
        return []

    def _locate(self) -> Position | None:
        if self._position is None:
            numbers = self._directory.numbers()
            self._position = Position(numbers[0], 0) if numbers else None
        return self._position

    def _exists(self, position: Position) -> bool:
        return self._directory.files.exists(self._directory.segment_path(position.segment))

    def _records(self, position: Position, size: int, sealed: bool) -> Records:
        number, path = position.segment, self._directory.segment_path(position.segment)
        scan = read_records(
            self._directory.files, path, position.offset, size, self._read_bytes, self._max_payload_bytes
        )
        if not scan.payloads and (scan.wrong or sealed):
            raise StreamCorrupt(path, number, scan.end, scan.wrong or "the record is cut short")
        self._position = Position(number, scan.end)
        return [(Position(number, end), payload) for end, payload in scan.payloads]

    def _explain_missing(self) -> None:
        """The segment is not there: removed, never written, or (without a position of our own) just trimmed away."""
        position, numbers = self._position, self._directory.numbers()
        if self._anywhere or position is None:
            self._position = None
        elif numbers and numbers[0] > position.segment:
            raise StreamTrimmed(self._directory.path, position.segment, numbers[0])
        elif numbers and numbers[-1] < position.segment:
            raise PositionBeyondEnd(self._directory.path, str(position), f"segment {numbers[-1]}")
