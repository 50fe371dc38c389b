"""What the running step has told so far, and how much of it there may be. Safe to use from several threads."""

from __future__ import annotations

import threading

from pipeline.stream.errors import PushedRowsFull
from pipeline.stream.own.source import OwnSource
from pipeline.stream.own.told import Told, newest


class Telling:
    def __init__(self, source: OwnSource | None, limit_bytes: int) -> None:
        """``limit_bytes`` of rows, those that ``source`` keeps for the next cut included."""
        self._source, self._limit_bytes = source, limit_bytes
        self._lock = threading.Lock()
        self._pieces: dict[str, list[Told]] = {}

    def add(self, table: str, piece: Told) -> None:
        """Raises PushedRowsFull: then nothing was added. What brings no rows is always taken."""
        if len(piece.rows_xb) and self.nbytes + piece.nbytes > self._limit_bytes:
            self._merge()
            if self.nbytes + piece.nbytes > self._limit_bytes:
                raise PushedRowsFull(table, piece.nbytes, self.nbytes, self._limit_bytes)
        with self._lock:
            self._pieces.setdefault(table, []).append(piece)

    def take(self) -> dict[str, Told]:
        """All of it, each id once; what follows belongs to the next step."""
        with self._lock:
            pieces, self._pieces = self._pieces, {}
        return {table: newest(told) for table, told in pieces.items()}

    @property
    def nbytes(self) -> int:
        """Memory held, with what waits for the next cut."""
        with self._lock:
            pending = sum(piece.nbytes for pieces in self._pieces.values() for piece in pieces)
        return pending + (0 if self._source is None else self._source.nbytes)

    def _merge(self) -> None:
        if self._source is not None:
            self._source.merge()
        with self._lock:
            self._pieces = {table: [newest(pieces)] for table, pieces in self._pieces.items()}
