"""Where the segments of a stream lie: names, listing, the epoch file. What retention removes."""

from __future__ import annotations

import re
import uuid

from pipeline.files import Files, write_atomically
from pipeline.rows.spec import NAME_PATTERN
from pipeline.wire.errors import StreamAbsent, TransportError
from pipeline.wire.records import Scan, scan_records

FIRST_SEGMENT = 1
_NAME = re.compile(r"([0-9]{10})\.seg")


class SegmentDirectory:
    """The files of one stream. Owns no open file."""

    def __init__(self, path: str, files: Files) -> None:
        self.path = path
        self.files = files

    def segment_path(self, number: int) -> str:
        return f"{self.path}/{number:010d}.seg"

    def numbers(self) -> list[int]:
        """The segments that are there, rising; none where the directory is absent."""
        if not self.files.exists(self.path):
            return []
        return sorted(int(match[1]) for name in self.files.list(self.path) if (match := _NAME.fullmatch(name)))

    @property
    def _epoch_path(self) -> str:
        return f"{self.path}/epoch"

    def read_epoch(self) -> str:
        """Raises StreamAbsent where there is none."""
        if not self.files.exists(self._epoch_path):
            raise StreamAbsent(self.path)
        epoch = self.files.read(self._epoch_path).decode("ascii", "replace").strip()
        if not re.fullmatch(NAME_PATTERN, epoch):
            raise TransportError(f"{self._epoch_path}: {epoch[:200]!r} is not an epoch ({NAME_PATTERN})")
        return epoch

    def claim_epoch(self) -> str:
        """The epoch of the segments that are there; a new one where there are none, durable before it is used."""
        if self.numbers() and self.files.exists(self._epoch_path):
            return self.read_epoch()
        epoch = uuid.uuid4().hex
        write_atomically(self.files, self._epoch_path, epoch.encode())
        return epoch

    def remove_before(self, number: int) -> int:
        """Remove the segments before ``number``, oldest first, each durably before the next: what stays has no hole, not even after
        a crash that keeps some removals and loses others. Returns the bytes freed.
        """
        freed = 0
        for old in self.numbers():
            if old >= number:
                break
            freed += self.files.size(self.segment_path(old))
            self.files.remove(self.segment_path(old))
            self.files.sync_dir(self.path)
        return freed


def read_records(files: Files, path: str, offset: int, size: int, read_bytes: int, max_payload_bytes: int) -> Scan:
    """Scan about ``read_bytes`` of a segment of ``size`` bytes from ``offset`` on; more only for one longer record."""
    while True:
        scan = scan_records(files.read(path, offset, read_bytes), offset, max_payload_bytes)
        if scan.payloads or scan.wanted <= read_bytes or offset + scan.wanted > size:
            return scan
        read_bytes = scan.wanted
