"""Checked reading of a frame's msgpack map: each field by name, type and bounds, each once, none left over."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from pipeline.rows.spec import NAME_PATTERN
from pipeline.wire.errors import FrameError
from pipeline.wire.frames import CutPosition
from pipeline.wire.row_runs import NO_BYTES, NO_IDS, Int64s, RowBytes

MAX_INT64 = (1 << 63) - 1
MAX_UINT64 = (1 << 64) - 1


class Fields:
    """The map of one frame, or of a part of one. ``where`` names it in errors."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise FrameError(f"expected a map, found {type(value).__name__}", where)
        self._left = dict(value)
        self.where = where

    def _take(self, name: str, kind: type, optional: bool = False) -> Any:
        if name not in self._left:
            if optional:
                return None
            raise FrameError("the field is missing", self._at(name))
        value = self._left.pop(name)
        if optional and value is None:
            return None
        if type(value) is not kind:
            raise FrameError(f"expected {kind.__name__}, found {type(value).__name__}", self._at(name))
        return value

    def _at(self, name: str) -> str:
        return f"{self.where}, field {name!r}"

    def integer(self, name: str, low: int = 0, high: int = MAX_INT64) -> int:
        return self._within(name, self._take(name, int), low, high)

    def optional_integer(self, name: str, high: int = MAX_UINT64) -> int | None:
        value = self._take(name, int, optional=True)
        return None if value is None else self._within(name, value, 0, high)

    def _within(self, name: str, value: int, low: int, high: int) -> int:
        if not low <= value <= high:
            raise FrameError(f"{value} is not within {low} .. {high}", self._at(name))
        return value

    def number(self, name: str) -> float:
        value = float(self._take(name, float))
        if not np.isfinite(value):
            raise FrameError(f"{value} is not finite", self._at(name))
        return value

    def optional_number(self, name: str) -> float | None:
        return self.number(name) if name in self._left else None

    def flag(self, name: str) -> bool:
        return bool(self._take(name, bool, optional=True))

    def name(self, name: str) -> str:
        value: str = self._take(name, str)
        if not re.fullmatch(NAME_PATTERN, value):
            raise FrameError(f"{value[:200]!r} does not match {NAME_PATTERN}", self._at(name))
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value: str = self._take(name, str)
        if value not in choices:
            raise FrameError(f"{value[:200]!r} is not one of {', '.join(choices)}", self._at(name))
        return value

    def array(self, name: str, limit: int, optional: bool = False) -> list[Any]:
        value: list[Any] = self._take(name, list, optional) or []
        if len(value) > limit:
            raise FrameError(f"{len(value)} items, the limit is {limit}", self._at(name))
        return value

    def mapping(self, name: str, limit: int) -> dict[str, Any]:
        value: dict[str, Any] = self._take(name, dict, optional=True) or {}
        if len(value) > limit:
            raise FrameError(f"{len(value)} entries, the limit is {limit}", self._at(name))
        return value

    def data(self, name: str) -> bytes:
        value: bytes = self._take(name, bytes)
        return value

    def optional_data(self, name: str, limit: int) -> bytes:
        """At most ``limit`` bytes; none where the field is absent."""
        value: bytes = self._take(name, bytes, optional=True) or b""
        if len(value) > limit:
            raise FrameError(f"{len(value)} bytes, the limit is {limit}", self._at(name))
        return value

    def int64s(self, name: str, limit: int, optional: bool = False, count: int | None = None) -> Int64s:
        """Little-endian int64 numbers, ``count`` of them if that is given, as a read-only view of the frame."""
        data = self._take(name, bytes, optional) or b""
        if len(data) % 8 or len(data) // 8 > limit:
            raise FrameError(f"{len(data)} bytes are not at most {limit} int64 numbers", self._at(name))
        if count is not None and len(data) != 8 * count:
            raise FrameError(f"{len(data) // 8} numbers where {count} are announced", self._at(name))
        return np.frombuffer(data, dtype="<i8").astype(np.int64, copy=False) if data else NO_IDS

    def uint8s(self, name: str, count: int) -> RowBytes:
        """``count`` bytes, as a read-only view of the frame."""
        data = self.data(name)
        if len(data) != count:
            raise FrameError(f"{len(data)} bytes where {count} are announced", self._at(name))
        return np.frombuffer(data, dtype=np.uint8) if data else NO_BYTES

    def position(self, name: str) -> CutPosition:
        generation, cut = self._pair(name)
        return CutPosition(generation, cut)

    def _pair(self, name: str) -> list[int]:
        pair = self.array(name, 2)
        if len(pair) != 2 or any(type(value) is not int or not 0 <= value <= MAX_INT64 for value in pair):
            raise FrameError("expected [generation, cut]", self._at(name))
        return pair

    def end(self) -> None:
        """Refuse what nobody asked for: a new field means a new format version."""
        if self._left:
            names = ", ".join(repr(str(name)[:50]) for name in list(self._left)[:5])
            raise FrameError(f"unknown field(s) {names}", self.where)


def split_rows(data: Any, count: int, where: str) -> RowBytes:
    """View bytes as uint8 [count, len / count]. Raises FrameError unless that comes out even and no row is empty."""
    if type(data) is not bytes:
        raise FrameError(f"expected bytes, found {type(data).__name__}", where)
    if count == 0 and not data:
        return np.empty((0, 0), dtype=np.uint8)
    if count == 0 or len(data) % count or not data:
        raise FrameError(f"{len(data)} bytes do not make {count} rows", where)
    return np.frombuffer(data, dtype=np.uint8).reshape(count, -1)
