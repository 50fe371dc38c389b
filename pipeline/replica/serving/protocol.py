"""The messages of the lookup socket; PROTOCOL.md beside this file describes their bytes. Pure: no sockets, no rows.

Every length is checked against what came, and against ``Limits``, before memory is taken for it.

Legend: n ids of one part; d weights of a row; i ids of all parts of a request.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.replica.serving.errors import BadMessage, TooLarge

Int64s = npt.NDArray[np.int64]
Bytes = bytes | bytearray | memoryview

VERSION: Final = 1
HEADER: Final = struct.Struct("<IBBHQ")
"""Length of the body, kind, version, flags, number of the request."""
COUNTS: Final = struct.Struct("<II")
"""Two counts: (parts, 0), (bytes of a name, ids), (rows, dim), (bytes of text, 0)."""
STATE: Final = struct.Struct("<qqqq")
"""Step, generation, cut, wall clock in nanoseconds."""
ERROR: Final = struct.Struct("<HHI")
"""Code, 0, bytes of the message."""
ALIGN: Final = 8
MOST_PARTS: Final = 256
MOST_NAME_BYTES: Final = 128


class Kind(IntEnum):
    """Of a message. An answer has the kind of its request + 128, or is an ``ERROR``."""

    INFO = 1
    LOOKUP = 2
    DENSE = 3
    PIN = 4
    UNPIN = 5
    ERROR = 255


ANSWER: Final = 128


class Flag(IntFlag):
    VERSIONS = 1
    """The answer gives the version of each row before the rows."""


class Code(IntEnum):
    """What went wrong, in an ``ERROR``."""

    BAD_REQUEST = 1
    UNKNOWN_TABLE = 2
    TOO_LARGE = 3
    EXPIRED = 4
    """The pinned view's rows had to go: pin again."""
    BUSY = 5
    """No room for another connection, or for the answer, just now: try again."""
    CLOSING = 6
    FAILED = 7
    """The replica holds no whole state any more; or the request failed for a reason that the message tells."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes and gives; a client holds its own against what a server says."""

    request_bytes: int = 4 << 20
    """Of one request's body: half a million ids."""
    answer_bytes: int = 64 << 20
    """Of one answer's body: 262,144 rows of dim 64."""


class Header(NamedTuple):
    length: int
    """Bytes of the body that follows."""
    kind: int
    flags: int
    request: int
    """Chosen by the client; the answer repeats it."""


class State(NamedTuple):
    """The cut that an answer is of."""

    step: int
    generation: int
    cut: int
    clock_ns: int


class Part(NamedTuple):
    """One table of a lookup."""

    table: str
    ids_n: Int64s


def pack_header(length: int, kind: int, request: int, flags: int = 0) -> bytes:
    return HEADER.pack(length, kind, VERSION, flags, request)


def unpack_header(data: Bytes, most: int) -> Header:
    """Raises BadMessage for another version, TooLarge for a body of more than ``most`` bytes."""
    length, kind, version, flags, request = HEADER.unpack(data)
    if version != VERSION:
        raise BadMessage(f"a header of version {version}; this is version {VERSION} of the protocol")
    if length > most:
        raise TooLarge(f"a body of {length} bytes; at most {most} are taken: ask in parts")
    return Header(length, kind, flags, request)


def pack_lookup(parts: Sequence[Part]) -> bytes:
    """The body of a LOOKUP."""
    names = [part.table.encode() for part in parts]
    heads = b"".join(COUNTS.pack(len(name), len(part.ids_n)) for name, part in zip(names, parts, strict=True))
    front = COUNTS.pack(len(parts), 0) + heads + b"".join(names)
    ids = [np.ascontiguousarray(part.ids_n, dtype="<i8").tobytes() for part in parts]
    return b"".join([front, bytes(-len(front) % ALIGN), *ids])


def unpack_lookup(body: Bytes) -> list[Part]:
    """The parts of a LOOKUP; ids share the body's memory where that is aligned. Raises BadMessage."""
    heads, at = _heads(body, MOST_PARTS)
    if not heads:
        raise BadMessage("a lookup of no table")
    names = []
    for name_bytes, _ in heads:
        if not 0 < name_bytes <= MOST_NAME_BYTES or at + name_bytes > len(body):
            raise BadMessage(f"a name of {name_bytes} bytes; names have 1 to {MOST_NAME_BYTES}, and lie in the body")
        names.append(_text(body[at : at + name_bytes]))
        at += name_bytes
    at += -at % ALIGN
    num_ids = sum(count for _, count in heads)
    if at + 8 * num_ids != len(body):
        raise BadMessage(f"{num_ids} ids behind byte {at} make no body of {len(body)} bytes")
    ids_i = np.require(np.frombuffer(body, dtype="<i8", offset=at, count=num_ids), np.int64, ["A"])
    ends = np.cumsum([count for _, count in heads])[:-1]
    return [Part(name, ids_n) for name, ids_n in zip(names, np.split(ids_i, ends), strict=True)]


def _heads(body: Bytes, most: int) -> tuple[list[tuple[int, int]], int]:
    """The pairs of counts that a body begins with, and where they end."""
    if len(body) < COUNTS.size:
        raise BadMessage(f"a body of {len(body)} bytes; it begins with {COUNTS.size} bytes of counts")
    count, _ = COUNTS.unpack_from(body)
    end = COUNTS.size * (1 + count)
    if count > most or end > len(body):
        raise BadMessage(f"{count} parts in a body of {len(body)} bytes; at most {most}, and all must lie in it")
    return list(COUNTS.iter_unpack(body[COUNTS.size : end])), end


class RowsShape:
    """Where things lie in the body of an answer to a LOOKUP: known before it is made."""

    def __init__(self, shapes: Sequence[tuple[int, int]], *, versions: bool) -> None:
        """``shapes``: (rows, dim) of each part."""
        self.shapes = list(shapes)
        self.versions_at = STATE.size + COUNTS.size * (1 + len(self.shapes))
        num_rows = sum(rows for rows, _ in self.shapes)
        self.rows_at = self.versions_at + (8 * num_rows if versions else 0)
        self.nbytes = self.rows_at + sum(4 * rows * dim for rows, dim in self.shapes)
        self._versions = versions

    def front(self, state: State) -> bytes:
        """What lies before versions and rows."""
        heads = b"".join(COUNTS.pack(*shape) for shape in self.shapes)
        return STATE.pack(*state) + COUNTS.pack(len(self.shapes), 0) + heads

    def rows(self, body_b: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        """The rows of each part, [n, d], as they lie in the body."""
        found, at = [], self.rows_at
        for rows, dim in self.shapes:
            end = at + 4 * rows * dim
            found.append(body_b[at:end].view("<f4").reshape(rows, dim))
            at = end
        return found

    def versions(self, body_b: npt.NDArray[np.uint8]) -> list[Int64s] | None:
        """The version of each row of each part, as they lie in the body; None where it has none."""
        if not self._versions:
            return None
        all_i = body_b[self.versions_at : self.rows_at].view("<i8")
        return list(np.split(all_i, np.cumsum([rows for rows, _ in self.shapes])[:-1]))


def unpack_rows(body_b: npt.NDArray[np.uint8], flags: int) -> tuple[State, RowsShape]:
    """Raises BadMessage."""
    body = body_b.data
    state = unpack_state(body)
    heads, _ = _heads(body[STATE.size :], MOST_PARTS)
    shape = RowsShape(heads, versions=bool(flags & Flag.VERSIONS))
    if shape.nbytes != len(body):
        raise BadMessage(f"parts of {heads} rows and weights make no body of {len(body)} bytes")
    return state, shape


def unpack_state(body: Bytes) -> State:
    """Raises BadMessage."""
    if len(body) < STATE.size:
        raise BadMessage(f"an answer of {len(body)} bytes; a state has {STATE.size}")
    return State(*STATE.unpack_from(body))


def pack_error(request: int, code: Code, message: str) -> bytes:
    """A whole ERROR, header and body."""
    text = message.encode()
    body = ERROR.pack(code, 0, len(text)) + text
    return pack_header(len(body), Kind.ERROR, request) + body


def unpack_error(body: Bytes) -> tuple[int, str]:
    """Code and message. Raises BadMessage."""
    if len(body) < ERROR.size or ERROR.unpack_from(body)[2] != len(body) - ERROR.size:
        raise BadMessage(f"an error of {len(body)} bytes that is none")
    return int(ERROR.unpack_from(body)[0]), _text(body[ERROR.size :])


def _text(data: Bytes) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise BadMessage(f"a text that is not UTF-8: {error}") from None
