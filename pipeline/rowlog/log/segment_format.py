"""The bytes of a segment around its records: what it is, before them, and what it holds, behind them.

    bytes 0..4096    magic ``RSLG``, u32 length of the JSON, u64 XXH64 of the JSON, the JSON, zeros
    then             records in blocks (``records``)
    then             the footer: ids int64 [n], versions int64 [n]
    last 40 bytes    magic ``RSLF``, u32 format, u64 n, u64 XXH64 of the footer, u64 offset of the footer, u64 XXH64 of these

A segment without a whole footer was not sealed; nothing relies on it. The index is rebuilt from footers alone.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from pipeline.files import Files
from pipeline.rowlog.errors import OtherFormat
from pipeline.rowlog.log.errors import LogCorrupt
from pipeline.rowlog.log.records import HEADER_BYTES, ROW_BITS, Records
from pipeline.rows.spec import TableSpec

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]

FORMAT_VERSION: Final = 1
MAGIC, FOOTER_MAGIC = b"RSLG", b"RSLF"
_HEAD = struct.Struct("<4sIQ")
_TRAILER = struct.Struct("<4sIQQQ")
_CHECK = struct.Struct("<Q")
TRAILER_BYTES: Final = _TRAILER.size + _CHECK.size
KEY_BYTES: Final = 16


class Footer(NamedTuple):
    """Of each record: its id and version; ``records.DEAD`` versions forget their id."""

    ids_n: Int64s
    versions_n: Int64s


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A sealed segment as a checkpoint names it. ``checksum``: of its footer, 16 hex digits."""

    path: str
    num_rows: int
    size: int
    checksum: str


def segment_size(records: Records, num_rows: int) -> int:
    """Bytes of a sealed segment of so many records."""
    return HEADER_BYTES + records.data_bytes(num_rows) + KEY_BYTES * num_rows + TRAILER_BYTES


def describe(spec: TableSpec, number: int, records: Records) -> dict[str, Any]:
    """What a segment says of itself."""
    columns = [[column.name, column.dtype, column.width, column.role] for column in spec.layout.columns]
    return {
        "format": FORMAT_VERSION,
        "table": spec.name,
        "number": number,
        "columns": columns,
        "stride": records.stride,
        "per_block": records.per_block,
        "block": records.block,
    }


def encode_header(description: dict[str, Any]) -> bytes:
    data = json.dumps(description, sort_keys=True).encode()
    head = _HEAD.pack(MAGIC, len(data), xxhash.xxh64_intdigest(data)) + data
    assert len(head) <= HEADER_BYTES, "the description of a table does not fit into a segment's header"
    return head.ljust(HEADER_BYTES, b"\0")


def check_header(path: str, data: bytes, expected: dict[str, Any]) -> None:
    """Raises LogCorrupt, OtherFormat."""
    if len(data) < HEADER_BYTES:
        raise LogCorrupt(path, len(data), "the file ends inside its header")
    magic, length, digest = _HEAD.unpack_from(data)
    body = data[_HEAD.size : _HEAD.size + length]
    if magic != MAGIC or length > HEADER_BYTES - _HEAD.size or xxhash.xxh64_intdigest(body) != digest:
        raise LogCorrupt(path, 0, "the header is not that of a segment, or its bytes were changed")
    found = json.loads(body)
    if found.get("format") != FORMAT_VERSION:
        raise OtherFormat(path, found.get("format"), FORMAT_VERSION)
    if found != expected:
        wrong = sorted(key for key in expected if found.get(key) != expected[key])
        told = ", ".join(f"{key} {found.get(key)} instead of {expected[key]}" for key in wrong)
        raise LogCorrupt(path, 0, f"a segment of something else: {told}")


def encode_footer(ids_n: Int64s, versions_n: Int64s, offset: int) -> tuple[bytes, str]:
    """The footer and the trailer of a segment whose records end at ``offset``, and the footer's checksum."""
    body = ids_n.tobytes() + versions_n.tobytes()
    digest = xxhash.xxh64_intdigest(body)
    trailer = _TRAILER.pack(FOOTER_MAGIC, FORMAT_VERSION, len(ids_n), digest, offset)
    return b"".join((body, trailer, _CHECK.pack(xxhash.xxh64_intdigest(trailer)))), f"{digest:016x}"


def decode_trailer(path: str, data: bytes, size: int) -> tuple[int, int, int]:
    """(records, checksum of the footer, offset of the footer) from a file's last bytes. Raises LogCorrupt."""
    at = max(size - TRAILER_BYTES, 0)
    if len(data) < TRAILER_BYTES:
        raise LogCorrupt(path, at, "the file is too short for a sealed segment")
    magic, version, count, digest, offset = _TRAILER.unpack_from(data)
    (check,) = _CHECK.unpack_from(data, _TRAILER.size)
    if magic != FOOTER_MAGIC or check != xxhash.xxh64_intdigest(data[: _TRAILER.size]):
        raise LogCorrupt(path, at, "the segment was not sealed, or its end was changed")
    if version != FORMAT_VERSION:
        raise OtherFormat(path, version, FORMAT_VERSION)
    if offset + KEY_BYTES * count + TRAILER_BYTES != size:
        raise LogCorrupt(path, at, f"{size} bytes; a footer of {count} records at {offset} ends elsewhere")
    return count, digest, offset


def decode_footer(path: str, data: bytes, count: int, digest: int, offset: int) -> Footer:
    """Raises LogCorrupt."""
    if len(data) != KEY_BYTES * count or xxhash.xxh64_intdigest(data) != digest:
        raise LogCorrupt(path, offset, "the footer's checksum does not agree with its bytes")
    both = np.frombuffer(data, dtype="<i8")
    return Footer(both[:count], both[count:])


def number_of(path: str) -> int:
    """The number in a segment's name."""
    return int(path.removesuffix(".seg")[-10:])


def check_is_of(files: Files, spec: TableSpec, records: Records, path: str) -> None:
    """Raises LogCorrupt, OtherFormat unless the file's header is that of a segment of this table with the number in its name."""
    check_header(path, files.read(path, 0, HEADER_BYTES), describe(spec, number_of(path), records))


def read_records(files: Files, records: Records, path: str, first: int, count: int) -> tuple[RowBytes, int]:
    """(bytes of so many records from number ``first`` on, which begins a block; where in the file they begin). Raises LogCorrupt."""
    start, size = HEADER_BYTES + records.data_bytes(first), records.data_bytes(count)
    data = np.frombuffer(files.read(path, start, size), dtype=np.uint8)
    if len(data) != size:
        raise LogCorrupt(path, start + len(data), "the file ends among its records")
    return data, start


def check_unpacked(
    wrong: int, ids_n: Int64s, places_n: Int64s, records: Records, table: str, path: Callable[[int], str]
) -> None:
    """Raise LogCorrupt for number ``wrong`` of these records, unless it is -1 (``Records.unpack``). ``path``: of a segment's number."""
    if wrong >= 0:
        number, row = divmod(int(places_n[wrong]), 1 << ROW_BITS)
        at = int(records.offsets(np.array([row], dtype=np.int64))[0])
        what = f"the record of id {int(ids_n[wrong])} of table {table!r} is not what was written"
        raise LogCorrupt(path(number), at, what)


def read_footer(files: Files, sealed: SealedSegment) -> Footer:
    """Raises LogCorrupt where the file's end is not that of this segment."""
    path, size = sealed.path, sealed.size
    found = files.size(path)
    if found != size:
        raise LogCorrupt(path, min(found, size), f"the file has {found} bytes instead of {size}")
    at = max(size - TRAILER_BYTES, 0)
    count, digest, offset = decode_trailer(path, files.read(path, at, TRAILER_BYTES), size)
    if count != sealed.num_rows or f"{digest:016x}" != sealed.checksum:
        what = f"{count} records with checksum {digest:016x}"
        raise LogCorrupt(path, at, f"a footer of {what} instead of {sealed.num_rows} with {sealed.checksum}")
    return decode_footer(path, files.read(path, offset, at - offset), count, digest, offset)
