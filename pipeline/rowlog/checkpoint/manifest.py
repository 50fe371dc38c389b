"""The manifest of a checkpoint: everything that is in it, as one JSON file that checks itself.

``manifest.json`` begins with ``{"checksum": "<16 hex digits>"``: XXH64 of the file's bytes with these digits as zeros.
So any flipped or missing byte of it is found. It names every other file of the checkpoint with its size and a checksum:
the segments of the row log that hold its rows (``log.segment_format``: they check their records themselves), and its blobs.
Paths are relative to the checkpoint's directory, but for segments that lie outside the run's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import xxhash

from pipeline.rowlog.errors import CheckpointCorrupt, OtherFormat
from pipeline.rowlog.log.mark import SavedTable
from pipeline.rowlog.log.segment_format import SealedSegment
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 2
HEAD = b'{"checksum": "'
BLANK = b"0" * 16
DIGITS = slice(len(HEAD), len(HEAD) + len(BLANK))


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One table: what its rows look like, and the segments that hold them, paths as in the manifest."""

    spec: TableSpec
    saved: SavedTable


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """One named byte string, in a file of its own."""

    file: str
    size: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint holds. ``extra`` is whatever the writer wanted to have in it: plain JSON values."""

    step: int
    generation: int
    extra: Mapping[str, Any]
    tables: Mapping[str, TableEntry]
    blobs: Mapping[str, BlobEntry]


def checksum(data: bytes | bytearray | memoryview) -> str:
    """XXH64 (seed 0) as 16 hex digits."""
    return xxhash.xxh64_hexdigest(data)


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of ``manifest.json``. Raises TypeError or ValueError where ``extra`` is not plain JSON (NaN
    included)."""
    fields: dict[str, Any] = {
        "checksum": BLANK.decode(),
        "format": FORMAT_VERSION,
        "step": manifest.step,
        "generation": manifest.generation,
        "extra": dict(manifest.extra),
        "tables": {name: _table_fields(entry) for name, entry in manifest.tables.items()},
        "blobs": {name: asdict(entry) for name, entry in manifest.blobs.items()},
    }
    data = json.dumps(fields, allow_nan=False).encode() + b"\n"
    assert data.startswith(HEAD + BLANK)
    return data[: DIGITS.start] + checksum(data).encode() + data[DIGITS.stop :]


def decode_manifest(data: bytes, path: str) -> Manifest:
    """Read ``manifest.json``. Raises OtherFormat, or CheckpointCorrupt where a byte is not as it was written."""
    blanked = data[: DIGITS.start] + BLANK + data[DIGITS.stop :]
    if not data.startswith(HEAD) or checksum(blanked).encode() != data[DIGITS]:
        _refuse_other_format(data, path)
        raise CheckpointCorrupt(path, 0, f"the manifest's {len(data)} bytes do not have the checksum at its beginning")
    fields = json.loads(data)
    if fields["format"] != FORMAT_VERSION:
        raise OtherFormat(path, fields["format"], FORMAT_VERSION)
    return Manifest(
        fields["step"],
        fields["generation"],
        fields["extra"],
        {name: _read_table(name, entry) for name, entry in fields["tables"].items()},
        {name: BlobEntry(**entry) for name, entry in fields["blobs"].items()},
    )


def _refuse_other_format(data: bytes, path: str) -> None:
    """Another format may have another way to check itself: say so rather than call it corrupt."""
    try:
        fields = json.loads(data)
    except ValueError:
        return
    found = fields.get("format") if isinstance(fields, dict) else None
    if isinstance(found, int) and found != FORMAT_VERSION:
        raise OtherFormat(path, found, FORMAT_VERSION)


def _table_fields(entry: TableEntry) -> dict[str, Any]:
    spec, saved = entry.spec, entry.saved
    return {
        "seed": spec.seed,
        "initializer": asdict(spec.initializer),
        "default": spec.default,
        "columns": [asdict(column) for column in spec.layout.columns],
        "row_bytes": spec.layout.row_bytes,
        "num_rows": saved.num_rows,
        "next_number": saved.next_number,
        "segments": [[one.path, one.num_rows, one.size, one.checksum] for one in saved.segments],
    }


def _read_table(name: str, fields: Mapping[str, Any]) -> TableEntry:
    layout = RowLayout(tuple(Column(**column) for column in fields["columns"]))
    spec = TableSpec(name, layout, Initializer(**fields["initializer"]), fields["seed"], fields.get("default"))
    segments = tuple(SealedSegment(*segment) for segment in fields["segments"])
    return TableEntry(spec, SavedTable(segments, fields["num_rows"], fields["next_number"]))
