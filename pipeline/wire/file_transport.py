"""The ``file`` transport: a directory of segments. One process writes, any number read.

    DIR/epoch              text: the life of this storage
    DIR/0000000001.seg     records (``records``), the first of which holds the header frame
    DIR/.lock              held by the writer

The walk: ``claim`` locks, recovers the last segment and finds the epoch; ``begin`` starts a segment for its
generation; ``publish`` appends; ``retain_from`` removes whole segments.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack

from pydantic import BaseModel, ConfigDict, Field

from pipeline.files import DirectoryLock, Files, RealFiles
from pipeline.wire.errors import StreamAbsent, TransportClosed, TransportError
from pipeline.wire.growth import Growth
from pipeline.wire.recovery import recover_segment
from pipeline.wire.segment_reader import SegmentReader
from pipeline.wire.segment_writer import SegmentWriter
from pipeline.wire.segments import FIRST_SEGMENT, SegmentDirectory
from pipeline.wire.transport import Position
from pipeline.wire.watch import watch_directory


class FileTransportOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    segment_bytes: int = Field(
        default=64 << 20, ge=4096, description="a segment that holds this much is followed by another"
    )
    poll_s: float = Field(default=0.005, gt=0, description="how often a reader of a flowing stream looks, seconds")
    read_bytes: int = Field(
        default=4 << 20, ge=4096, description="how much a reader takes at once, unless a frame is longer"
    )
    max_frame_bytes: int = Field(default=64 << 20, ge=4096, description="a longer frame is refused as damage")


class FileTransport:
    """See ``transport.Transport``. Safe to share by threads; a process that only reads never locks or writes."""

    name = "file"

    def __init__(
        self,
        directory: str,
        files: Files | None = None,
        options: FileTransportOptions | None = None,
        lock: Callable[[str], AbstractContextManager[object]] = DirectoryLock,
    ) -> None:
        """Touches nothing yet. ``lock(directory)`` is entered while this object may write."""
        self.options = options or FileTransportOptions()
        self.torn_bytes = 0
        """Bytes of a torn end that ``claim`` cut off."""
        self.freed_bytes = 0
        """Bytes that retention removed."""
        self._directory = SegmentDirectory(directory, files or RealFiles())
        self._lock = threading.Lock()
        self._make_lock = lock
        self._claimed: ExitStack | None = None
        self._writer: SegmentWriter | None = None
        self._end = Position(FIRST_SEGMENT - 1, 0)
        self._growth = Growth()
        self._readers: weakref.WeakSet[SegmentReader] = weakref.WeakSet()
        self._closed = False

    @property
    def directory(self) -> str:
        return self._directory.path

    @property
    def epoch(self) -> str:
        return self._directory.read_epoch()

    @property
    def end(self) -> Position:
        """Raises TransportError in a process that did not claim the stream."""
        with self._lock:
            self._check_claimed()
            return self._end if self._writer is None else self._writer.end

    def claim(self) -> str:
        """See ``Transport``. Raises LockedDirectory while another process writes, StreamCorrupt where the end is
        damaged.
        """
        with self._lock:
            self._check_open()
            if self._claimed is not None:
                return self._directory.read_epoch()
            self._directory.files.make_dirs(self._directory.path)
            with ExitStack() as held:
                held.enter_context(self._make_lock(self._directory.path))
                self._recover()
                epoch = self._directory.claim_epoch()
                self._claimed = held.pop_all()
            return epoch

    def _recover(self) -> None:
        numbers = self._directory.numbers()
        if numbers:
            recovered = recover_segment(self._directory, numbers[-1], self.options.max_frame_bytes)
            self._end = Position(numbers[-1], recovered.end)
            self.torn_bytes += recovered.torn_bytes

    def begin(self, header: bytes) -> Position:
        """A generation starts a segment of its own."""
        with self._lock:
            self._check_claimed()
            if self._writer is not None:
                self._end, old, self._writer = self._writer.end, self._writer, None
                old.close()
            self._writer = SegmentWriter(
                self._directory,
                max(self._directory.numbers(), default=FIRST_SEGMENT - 1) + 1,
                header,
                segment_bytes=self.options.segment_bytes,
                max_payload_bytes=self.options.max_frame_bytes,
            )
            end = self._writer.end
        self._growth.notify()
        return end

    def publish(self, frames: Sequence[bytes], *, sync: bool) -> Position:
        with self._lock:
            self._check_claimed()
            if self._writer is None:
                raise TransportError(f"{self._directory.path}: begin() comes before publish()")
            try:
                for frame in frames:
                    self._writer.append(frame)
            finally:
                self._growth.notify()
            if sync:
                self._writer.sync()
            return self._writer.end

    def subscribe(self, position: Position | None) -> SegmentReader:
        """A reader of real files waits for inotify; any other makes two stat calls per ``poll_s`` while nothing comes, and a writer
        that shares this object wakes it at once.
        """
        options = self.options
        reader = SegmentReader(
            self._directory,
            position,
            self._growth,
            poll_s=options.poll_s,
            read_bytes=options.read_bytes,
            max_payload_bytes=options.max_frame_bytes,
            make_watch=watch_directory if isinstance(self._directory.files, RealFiles) else None,
        )
        with self._lock:
            self._check_open()
            self._readers.add(reader)
        return reader

    def newest_first(self) -> Iterator[list[bytes]]:
        """A piece is a segment. See ``Transport``."""
        for number in reversed(self._directory.numbers()):
            reader = self.subscribe(Position(number, 0))
            frames: list[bytes] = []
            try:
                while (some := reader.next(0)) is not None:
                    frames += [payload for position, payload in some if position.segment == number]
                    if some[-1][0].segment != number:
                        break
            finally:
                reader.close()
            if frames:
                yield frames

    def retain_from(self, position: Position) -> int:
        with self._lock:
            self._check_claimed()
            freed = self._directory.remove_before(min(position, self._end_now()).segment)
            self.freed_bytes += freed
            return freed

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for reader in self._readers:
                reader.close()
            try:
                if self._writer is not None:
                    self._writer.close()
            finally:
                claimed, self._claimed = self._claimed, None
                if claimed is not None:
                    claimed.close()

    def _end_now(self) -> Position:
        return self._end if self._writer is None else self._writer.end

    def _check_open(self) -> None:
        if self._closed:
            raise TransportClosed(f"{self._directory.path}: the transport was closed")

    def _check_claimed(self) -> None:
        self._check_open()
        if self._claimed is None:
            raise TransportError(f"{self._directory.path}: only the process that called claim() may write")


def holds_stream(directory: str, files: Files | None = None) -> bool:
    """Whether somebody ever claimed a stream in ``directory``. Writes nothing."""
    transport = FileTransport(directory, files)
    try:
        return bool(transport.epoch)
    except StreamAbsent:
        return False
    finally:
        transport.close()
