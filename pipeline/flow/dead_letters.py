"""The file of items that a stage gave up: one JSON line each. Written on a lane, bounded in size."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from pipeline.flow.errors import StageError
from pipeline.flow.stage import Lane

MOST_ITEM_CHARS = 4096
MOST_BYTES = 64 << 20


class DeadLetters:
    """Appends to ``path``; opened with the first letter.

    A file at its bound fails the run rather than lose a letter.
    """

    def __init__(self, path: str, lane: Lane, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._lane = lane
        self._most_bytes = most_bytes
        self._file: BinaryIO | None = None

    async def write(self, stage: str, item: Any, error: Exception) -> None:
        """Append one letter; it is with the operating system when this returns. Raises StageError, OSError."""
        await self._lane.run(self._write, stage, item, error)

    async def close(self) -> None:
        """Close the file, if one was opened."""
        await self._lane.run(self._close)

    def _write(self, stage: str, item: Any, error: Exception) -> None:
        text = repr(item)
        letter = {
            "stage": stage,
            "item": text[:MOST_ITEM_CHARS],
            "error": f"{type(error).__name__}: {error}"[:MOST_ITEM_CHARS],
        }
        if len(text) > MOST_ITEM_CHARS:
            letter["cut"] = f"the item's text has {len(text)} characters"
        line = json.dumps(letter).encode() + b"\n"
        if self._file is None:
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        if self._file.tell() + len(line) > self._most_bytes:
            raise StageError(
                stage, f"{self.path} holds {self._file.tell()} bytes; a dead-letter file ends at {self._most_bytes}"
            )
        self._file.write(line)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
