"""What a writer does with the last segment that an earlier one left: keep what is whole, cut off a torn end, refuse
damage.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.wire.errors import StreamCorrupt
from pipeline.wire.records import HEAD_BYTES, durable_behind
from pipeline.wire.segments import SegmentDirectory, read_records

CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Recovered:
    """The segment ends at ``end``; ``torn_bytes`` behind it were cut off."""

    end: int
    torn_bytes: int


def recover_segment(directory: SegmentDirectory, number: int, max_payload_bytes: int) -> Recovered:
    """Make the last segment end behind its last whole record, durable as it then stands.

    Bytes that do not make a record are a torn end, unless a later record says that they were durable: then the segment
    is damaged, and StreamCorrupt says where.
    """
    files, path = directory.files, directory.segment_path(number)
    size, end, wrong = files.size(path), 0, ""
    while end < size and not wrong:
        scan = read_records(files, path, end, size, CHUNK_BYTES, max_payload_bytes)
        wrong = scan.wrong or ("" if scan.payloads else "the record is cut short")
        end = scan.end
    if end < size:
        _refuse_damage(directory, number, end, size, wrong, max_payload_bytes)
        files.truncate(path, end)
    _sync(directory, number)
    return Recovered(end, size - end)


def _refuse_damage(directory: SegmentDirectory, number: int, end: int, size: int, wrong: str, limit: int) -> None:
    path, at = directory.segment_path(number), end
    while at < size:
        data = directory.files.read(path, at, CHUNK_BYTES + HEAD_BYTES)
        if durable_behind(data, at, limit) > end:
            raise StreamCorrupt(path, number, end, wrong)
        at += CHUNK_BYTES


def _sync(directory: SegmentDirectory, number: int) -> None:
    file = directory.files.open_append(directory.segment_path(number))
    try:
        file.sync()
    finally:
        file.close()
