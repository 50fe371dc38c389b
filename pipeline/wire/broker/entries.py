"""Frames as a broker keeps them: numbered entries, a frame longer than one of them in several.

An entry's label says what it is: ``KIND.INDEX.COUNT``, fragment INDEX of COUNT. Kinds: ``f`` a frame, ``h`` a header frame that begins a
part of the stream, ``c`` the record of a claim, which readers pass over. Entries are numbered without a hole, and so are the fragments
of one frame: where that breaks off, its writer failed there and has sent the frame again, whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.wire.errors import StreamCorrupt

FRAME, HEADER, CLAIM = "f", "h", "c"


class Entry(NamedTuple):
    number: int
    """Its sequence number in the stream."""
    label: str
    payload: bytes


def split(kind: str, frame: bytes, after: int, payload_bytes: int) -> list[Entry]:
    """The entries of one frame, numbered from ``after + 1``."""
    view = memoryview(frame)
    pieces = [bytes(view[at : at + payload_bytes]) for at in range(0, max(len(frame), 1), payload_bytes)]
    return [Entry(after + 1 + k, f"{kind}.{k}.{len(pieces)}", piece) for k, piece in enumerate(pieces)]


class Joiner:
    """Puts frames together again, entry by entry. Holds at most one frame, of ``max_frame_bytes`` at most."""

    def __init__(self, place: str, max_frame_bytes: int) -> None:
        self.broken_off = 0
        """Frames that broke off and came again."""
        self._place, self._max_frame_bytes = place, max_frame_bytes
        self._pieces: list[bytes] = []
        self._nbytes, self._last = 0, 0

    def add(self, entry: Entry) -> bytes | None:
        """The frame that ``entry`` completes. Raises StreamCorrupt."""
        kind, index, count = self._read(entry)
        if kind == CLAIM:
            return None
        if index == 0 or index != len(self._pieces) or entry.number != self._last + 1:
            self.broken_off += bool(self._pieces)
            self._pieces, self._nbytes = [], 0
            if index:
                return None  # the rest of a frame whose beginning was not read
        self._last = entry.number
        self._nbytes += len(entry.payload)
        if self._nbytes > self._max_frame_bytes:
            raise self._corrupt(entry, f"a frame of more than {self._max_frame_bytes} bytes")
        if count == 1:
            self._nbytes = 0
            return entry.payload
        self._pieces.append(entry.payload)
        if index + 1 < count:
            return None
        frame, self._pieces, self._nbytes = b"".join(self._pieces), [], 0
        return frame

    def _read(self, entry: Entry) -> tuple[str, int, int]:
        kind, _, rest = entry.label.partition(".")
        index, _, count = rest.partition(".")
        if kind in (FRAME, HEADER, CLAIM) and index.isdecimal() and count.isdecimal() and int(index) < int(count):
            return kind, int(index), int(count)
        raise self._corrupt(entry, f"{entry.label[:40]!r} labels no entry of a stream of frames")

    def _corrupt(self, entry: Entry, what: str) -> StreamCorrupt:
        return StreamCorrupt(self._place, 0, entry.number, what, unit="message")


def join(place: str, entries: Iterable[Entry], max_frame_bytes: int) -> Iterator[bytes]:
    """The whole frames among neighbouring entries."""
    joiner = Joiner(place, max_frame_bytes)
    for entry in entries:
        frame = joiner.add(entry)
        if frame is not None:
            yield frame
