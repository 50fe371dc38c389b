"""A broker that fails on command: the file transport under another name, so that replicas and commands can read what it holds."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.files import Files
from pipeline.wire import FileTransport, FileTransportOptions, Position, StreamLost, TransportClosed, WriterFenced
from pipeline.wire.errors import BrokerUnreachable
from pipeline.wire.places import StreamPlaces, open_places
from pipeline.wire.segment_reader import SegmentReader

PLACE = "broker.test"


class Broker:
    """``is_down``: nothing is answered. ``hangs``: publishing waits until that is cleared, or the transport is closed."""

    def __init__(self) -> None:
        self.is_down = self.is_fenced = False
        self.hangs = threading.Event()
        self.refused = 0
        self.lives = 1

    def lose(self) -> None:
        """It comes back without its data."""
        self.lives += 1

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Runs stream to this broker from now on."""
        monkeypatch.setattr("stages.stream_place.open_places", self._open)

    def _open(self, options: Any, path: Path, num_shards: int, **given: Any) -> StreamPlaces:
        places = open_places(options, path, num_shards, **given)
        files, file_options = given["files"], given["file_options"]
        transports = [BrokenTransport(self, Path(name), files, file_options) for name in places.names]
        return replace(places, transports=transports)


class BrokenTransport:
    name = "broker"

    def __init__(self, broker: Broker, path: Path, files: Files, options: FileTransportOptions) -> None:
        self._broker, self._path, self._files, self._options = broker, path, files, options
        self._inner = FileTransport(str(path), files, options)
        self._life = broker.lives
        self._closed = threading.Event()

    @property
    def epoch(self) -> str:
        return self._inner.epoch

    @property
    def end(self) -> Position:
        return self._inner.end

    def claim(self) -> str:
        self._meet()
        if self._life != self._broker.lives:
            self._inner.close()
            shutil.rmtree(self._path, ignore_errors=True)
            self._inner = FileTransport(str(self._path), self._files, self._options)
            self._life = self._broker.lives
        return self._inner.claim()

    def begin(self, header: bytes) -> Position:
        self._meet()
        return self._inner.begin(header)

    def publish(self, frames: Sequence[bytes], *, sync: bool) -> Position:
        while self._broker.hangs.is_set() and not self._closed.wait(0.01):
            pass
        self._meet()
        if self._life != self._broker.lives:
            raise StreamLost(PLACE, "the stream is another one")
        return self._inner.publish(frames, sync=sync)

    def _meet(self) -> None:
        if self._closed.is_set():
            raise TransportClosed("the transport was closed")
        if self._broker.is_fenced:
            raise WriterFenced(PLACE, "generation 9 has claimed the stream")
        if self._broker.is_down:
            self._broker.refused += 1
            raise BrokerUnreachable(PLACE, "connection refused", "start it")

    def subscribe(self, position: Position | None) -> SegmentReader:
        return self._inner.subscribe(position)

    def newest_first(self) -> Iterator[list[bytes]]:
        return self._inner.newest_first()

    def retain_from(self, position: Position) -> int:
        self._meet()
        return self._inner.retain_from(position)

    def close(self) -> None:
        self._closed.set()
        self._inner.close()
