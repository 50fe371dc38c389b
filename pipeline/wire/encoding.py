"""Frames to bytes and back. ``FORMAT.md`` is the description for other languages; a test holds both together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from pipeline.wire import decoding
from pipeline.wire.envelope import DEFAULT_LEVEL, seal, unseal
from pipeline.wire.errors import FrameError
from pipeline.wire.fields import Fields
from pipeline.wire.frames import (
    DEFAULT_LIMITS,
    CommitFrame,
    DenseFrame,
    Frame,
    FrameLimits,
    HeaderFrame,
    RowsFrame,
    StreamedTable,
)
from pipeline.wire.shuffle import differences, shuffle_numbers, shuffle_rows


def encode_frame(frame: Frame, level: int = DEFAULT_LEVEL, dictionary: bytes = b"") -> bytes:
    """The bytes of a frame. ``level`` is zstd's, ``dictionary`` the last header's; a header needs none. Arrays may be of any layout."""
    return seal(frame_content(frame), level, b"" if isinstance(frame, HeaderFrame) else dictionary)


def frame_content(frame: Frame) -> bytes:
    """What is compressed: the msgpack map."""
    content: bytes = msgpack.packb(_ENCODERS[type(frame)](frame))
    return content


def decode_frame(
    data: bytes | memoryview, limits: FrameLimits = DEFAULT_LIMITS, header: HeaderFrame | None = None
) -> Frame:
    """The frame in ``data``; ``header`` is the last one before it, for its dictionary. ``reading.FrameReader`` keeps track of that.

    Raises FrameError for anything but a whole, unchanged frame of a format version that this build reads.
    """
    content = unseal(data, limits, b"" if header is None else header.dictionary)
    try:
        value = msgpack.unpackb(
            content,
            max_str_len=4096,
            max_bin_len=limits.content_bytes,
            max_array_len=max(limits.tables, limits.pieces, limits.runs, 16 * limits.columns, 64),
            max_map_len=max(limits.columns, 64),
            max_ext_len=0,
            object_pairs_hook=_refuse_twice,
        )
    except ValueError as error:
        raise FrameError(f"msgpack: {error or type(error).__name__}", "content") from error
    fields = Fields(value, "content")
    kind = fields.choice("kind", tuple(decoding.DECODERS))
    fields.where = f"kind {kind!r}"
    frame = decoding.DECODERS[kind](fields, limits)
    fields.end()
    return frame


def _refuse_twice(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in a map")
    return value


def _bytes_of(array: npt.NDArray[Any], dtype: str) -> memoryview:
    """The array's bytes, little endian, C order; no copy where it is so already."""
    return np.ascontiguousarray(array, dtype=dtype).data.cast("B") if array.size else memoryview(b"")


def _encode_header(frame: HeaderFrame) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "kind": "header",
        "run": frame.run_id,
        "writer": frame.writer,
        "shard": frame.shard,
        "shards": frame.num_shards,
        "gen": frame.generation,
        "epoch": frame.epoch,
        "created": frame.created_ns,
        "tables": [_encode_table(table) for table in frame.tables],
    }
    if frame.best_effort:
        fields["best_effort"] = True
    if frame.continues is not None:
        fields["continues"] = frame.continues
    return fields | {"dictionary": frame.dictionary} if frame.dictionary else fields


def _encode_table(table: StreamedTable) -> dict[str, Any]:
    spec, initializer = table.spec, table.spec.initializer
    fields: dict[str, Any] = {
        "name": spec.name,
        "columns": [[column.name, column.dtype, column.width, column.role] for column in spec.layout.columns],
        "codec": table.codec,
        "init": {
            "kind": initializer.kind,
            "low": float(initializer.low),
            "high": float(initializer.high),
            "mean": float(initializer.mean),
            "std": float(initializer.std),
        },
        "seed": spec.seed,
    }
    if spec.default is not None:
        fields["default"] = float(spec.default)
    return fields | {"carries": list(table.carries)} if table.carries else fields


def piece_of_cut(kind: str, frame: RowsFrame | DenseFrame) -> dict[str, Any]:
    """The fields that rows and dense frames begin with."""
    return {
        "kind": kind,
        "gen": frame.generation,
        "cut": frame.cut,
        "number": frame.number,
        "step": frame.step,
        "clock": frame.clock_ns,
        "snapshot": frame.snapshot,
    }


def head_of_rows(frame: RowsFrame) -> dict[str, Any]:
    """The fields of a rows frame that stand before its arrays."""
    arranged = {"shuffled": frame.shuffled, "delta": frame.delta}
    return {
        **piece_of_cut("rows", frame),
        "runs": frame.rows.heads,
        **{name: parts for name, parts in arranged.items() if parts},
    }


def _encode_rows(frame: RowsFrame) -> dict[str, Any]:
    rows = frame.rows
    if not sum(head.num_rows for head in rows.heads) == len(rows.ids_n) == len(rows.versions_n):
        raise ValueError(f"{rows.heads}: {len(rows.ids_n)} ids and {len(rows.versions_n)} versions")
    fields = head_of_rows(frame)
    fields["ids"] = _numbers(frame, "ids", rows.ids_n)
    fields["rows"] = _bytes_of(shuffle_rows(rows.rows_b, rows.heads) if "rows" in frame.shuffled else rows.rows_b, "u1")
    fields["versions"] = _numbers(frame, "versions", rows.versions_n)
    if len(rows.tombstones_m):
        fields["dead"] = _numbers(frame, "dead", rows.tombstones_m)
    if rows.columns:
        fields["columns"] = [
            (number, name, _bytes_of(values, "u1"))
            for number, columns in rows.columns.items()
            for name, values in columns.items()
        ]
    return fields


def _numbers(frame: RowsFrame, name: str, numbers_n: npt.NDArray[np.int64]) -> memoryview:
    if name in frame.delta:
        numbers_n = differences(numbers_n)
    return _bytes_of(shuffle_numbers(numbers_n), "u1") if name in frame.shuffled else _bytes_of(numbers_n, "<i8")


def _encode_dense(frame: DenseFrame) -> dict[str, Any]:
    pieces = [
        {"name": p.name, "dtype": p.dtype, "shape": list(p.shape), "start": p.start, "data": p.data}
        for p in frame.pieces
    ]
    return piece_of_cut("dense", frame) | {"pieces": pieces}


def _encode_commit(frame: CommitFrame) -> dict[str, Any]:
    fields = {
        "kind": "commit",
        "gen": frame.generation,
        "cut": frame.cut,
        "step": frame.step,
        "clock": frame.clock_ns,
        "type": frame.kind,
        "previous": list(frame.previous),
        "frames": frame.num_frames,
        "rows": frame.num_rows,
        "dead": frame.num_tombstones,
        "digest": frame.digest,
        "dense": frame.dense_digest,
        "ended": _bytes_of(frame.ended_k2, "<i8"),
        "end": frame.end,
    }
    optional = {
        "rewind": frame.rewind or None,
        "unsent": frame.unsent,
        "oldest": frame.oldest_ns,
        "oldest_step": frame.oldest_step,
    }
    return fields | {name: value for name, value in optional.items() if value is not None}


_ENCODERS: Mapping[type, Callable[[Any], dict[str, Any]]] = {
    HeaderFrame: _encode_header,
    RowsFrame: _encode_rows,
    DenseFrame: _encode_dense,
    CommitFrame: _encode_commit,
}
