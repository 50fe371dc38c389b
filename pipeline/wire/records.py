"""Records: how frames lie in a segment file. Pure: bytes in, values out.

    bytes 0..4    magic ``RSRC``
    bytes 4..8    length of the payload, u32 little endian
    bytes 8..16   up to which offset this segment was durable when the record was written, u64
    bytes 16..24  xxh64 (seed 0) of the payload, u64
    bytes 24..32  xxh64 of bytes 0..24, seed = the record's own offset in the segment, u64
    bytes 32..    the payload: one frame

The second checksum means that a changed length is noticed at once, not waited for. The durable offset tells damage
from a torn end: a record that a later one calls durable was whole once.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import xxhash

MAGIC = b"RSRC"
_HEAD = struct.Struct("<4sIQQ")
_CHECK = struct.Struct("<Q")
HEAD_BYTES = _HEAD.size + _CHECK.size
MAX_PAYLOAD_BYTES = (1 << 32) - 1


def record_head(payload: bytes, offset: int, durable: int) -> bytes:
    """What stands before a payload, in a record that will lie at ``offset``."""
    head = _HEAD.pack(MAGIC, len(payload), durable, xxhash.xxh64_intdigest(payload))
    return head + _CHECK.pack(xxhash.xxh64_intdigest(head, seed=offset))


@dataclass(slots=True)
class Scan:
    """What a stretch of a segment holds."""

    payloads: list[tuple[int, bytes]] = field(default_factory=list)
    """(offset behind the record, payload) of each whole record."""
    end: int = 0
    """Offset behind the last whole record."""
    durable: int = 0
    """The furthest offset that a whole record calls durable."""
    wanted: int = 0
    """Bytes from ``end`` on that the next record needs, where the stretch ended inside it; else 0."""
    wrong: str = ""
    """What is wrong with the record at ``end``, if it can be told."""


def scan_records(data: bytes | memoryview, offset: int, max_payload_bytes: int) -> Scan:
    """Read whole records from ``data``, which starts at ``offset`` of a segment, up to the first that is cut short or
    wrong.
    """
    view, scan, at = memoryview(data), Scan(end=offset), 0
    while at < len(view):
        if len(view) - at < HEAD_BYTES:
            scan.wanted = HEAD_BYTES
            break
        length, durable, checksum, scan.wrong = _read_head(view[at : at + HEAD_BYTES], scan.end, max_payload_bytes)
        if scan.wrong:
            break
        if len(view) - at < HEAD_BYTES + length:
            scan.wanted = HEAD_BYTES + length
            break
        payload = bytes(view[at + HEAD_BYTES : at + HEAD_BYTES + length])
        if xxhash.xxh64_intdigest(payload) != checksum:
            scan.wrong = "the checksum of the record does not agree with its bytes"
            break
        at += HEAD_BYTES + length
        scan.end += HEAD_BYTES + length
        scan.durable = max(scan.durable, durable)
        scan.payloads.append((scan.end, payload))
    return scan


def _read_head(head: memoryview, offset: int, max_payload_bytes: int) -> tuple[int, int, int, str]:
    """(length, durable, checksum, what is wrong)."""
    magic, length, durable, checksum = _HEAD.unpack_from(head)
    wrong = ""
    if magic != MAGIC:
        wrong = f"no record begins here (found {bytes(magic)!r}, expected {MAGIC!r})"
    elif xxhash.xxh64_intdigest(head[: _HEAD.size], seed=offset) != _CHECK.unpack_from(head, _HEAD.size)[0]:
        wrong = "the head of the record does not agree with its checksum"
    elif length > max_payload_bytes:
        wrong = f"a record of {length} bytes, the limit is {max_payload_bytes}"
    return length, durable, checksum, wrong


def durable_behind(data: bytes | memoryview, offset: int, max_payload_bytes: int) -> int:
    """The furthest durable offset named by any sound record head in ``data``, however damaged the rest; 0 when there
    is none.
    """
    raw, furthest, at = bytes(data), 0, 0
    while (at := raw.find(MAGIC, at)) >= 0 and len(raw) - at >= HEAD_BYTES:
        _, durable, _, wrong = _read_head(memoryview(raw)[at : at + HEAD_BYTES], offset + at, max_payload_bytes)
        furthest = max(furthest, 0 if wrong else durable)
        at += 1
    return furthest
