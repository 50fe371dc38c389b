"""From checked fields to frames: one function per kind, each of which bounds every count before it uses it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, cast

import numpy as np

from pipeline.rows.layout import NARROW, Column, RowLayout
from pipeline.rows.spec import NAME_PATTERN, Initializer, TableSpec
from pipeline.rows.version import MAX_GENERATION, MAX_STEP
from pipeline.wire.dense import DTYPES
from pipeline.wire.errors import FrameError
from pipeline.wire.fields import MAX_INT64, MAX_UINT64, Fields, split_rows
from pipeline.wire.frames import (
    CommitFrame,
    DenseFrame,
    DensePiece,
    Frame,
    FrameLimits,
    HeaderFrame,
    RowsFrame,
    StreamedTable,
)
from pipeline.wire.row_runs import Int64s, RowBytes, RowRuns, RunHead
from pipeline.wire.shuffle import NUMBERS, PARTS, sums, unshuffle_numbers, unshuffle_rows
from pipeline.wire.zstd import check_dictionary

WEIGHTS = ("float32", *NARROW)
MAX_WIDTH = 1 << 20
MAX_NUMBER = (1 << 31) - 1


def decode_header(fields: Fields, limits: FrameLimits) -> HeaderFrame:
    num_shards = fields.integer("shards", 1, 1 << 16)
    return HeaderFrame(
        run_id=fields.name("run"),
        writer=fields.name("writer"),
        shard=fields.integer("shard", 0, num_shards - 1),
        num_shards=num_shards,
        generation=fields.integer("gen", 0, MAX_GENERATION),
        epoch=fields.name("epoch"),
        created_ns=fields.integer("created"),
        tables=_decode_tables(fields.array("tables", limits.tables), limits),
        best_effort=fields.flag("best_effort"),
        continues=fields.optional_integer("continues", MAX_GENERATION),
        dictionary=_decode_dictionary(fields, limits),
    )


def _decode_dictionary(fields: Fields, limits: FrameLimits) -> bytes:
    dictionary = fields.optional_data("dictionary", limits.dictionary_bytes)
    if dictionary:
        try:
            check_dictionary(dictionary)
        except ValueError as error:
            raise FrameError(str(error), "kind 'header', field 'dictionary'") from error
    return dictionary


def _decode_tables(values: list[Any], limits: FrameLimits) -> tuple[StreamedTable, ...]:
    tables = tuple(
        _decode_table(Fields(value, f"kind 'header', table {number}"), limits) for number, value in enumerate(values)
    )
    names = [table.spec.name for table in tables]
    if len(set(names)) != len(names):
        raise FrameError("a table is named twice", "kind 'header', field 'tables'")
    return tables


def _decode_table(fields: Fields, limits: FrameLimits) -> StreamedTable:
    name, where = fields.name("name"), fields.where
    columns = [_decode_column(value, where) for value in fields.array("columns", limits.columns)]
    try:
        layout = RowLayout(tuple(columns))
        if columns[0].dtype not in WEIGHTS:
            raise ValueError(f"weights are {', '.join(WEIGHTS)}; found {columns[0].dtype}")
        initializer = _decode_initializer(Fields(fields.mapping("init", 8), f"{where}, initializer"))
        spec = TableSpec(
            name,
            layout,
            initializer,
            fields.integer("seed", -MAX_INT64 - 1, MAX_UINT64),
            fields.optional_number("default"),
        )
    except ValueError as error:
        raise FrameError(str(error), where) from error
    table = StreamedTable(spec, fields.name("codec"), _decode_carries(fields, layout, limits))
    fields.end()
    return table


def _decode_carries(fields: Fields, layout: RowLayout, limits: FrameLimits) -> tuple[str, ...]:
    carries = fields.array("carries", limits.columns, optional=True)
    others = [column.name for column in layout.columns[1:]]
    if carries != [name for name in others if name in carries]:
        raise FrameError(f"expected some of {others}, each once, in that order", f"{fields.where}, field 'carries'")
    return tuple(carries)


def _decode_column(value: Any, where: str) -> Column:
    if not isinstance(value, list) or [type(part) for part in value] != [str, str, int, str]:
        raise FrameError("a column is [name, dtype, width, role]", where)
    name, dtype, width, role = value
    if dtype not in (*DTYPES, *NARROW) or role not in ("weight", "state", "meta") or not 1 <= width <= MAX_WIDTH:
        raise FrameError(f"column {name[:128]!r}: dtype {dtype[:20]!r}, width {width}, role {role[:20]!r}", where)
    return Column(name, dtype, width, cast(Any, role))


def _decode_initializer(fields: Fields) -> Initializer:
    kind = fields.choice("kind", ("uniform", "normal", "zeros"))
    initializer = Initializer(cast(Any, kind), *(fields.number(name) for name in ("low", "high", "mean", "std")))
    fields.end()
    return initializer


def _piece_of_cut(fields: Fields) -> dict[str, Any]:
    return {
        "generation": fields.integer("gen", 0, MAX_GENERATION),
        "cut": fields.integer("cut"),
        "number": fields.integer("number", 0, MAX_NUMBER),
        "step": fields.integer("step", 0, MAX_STEP),
        "clock_ns": fields.integer("clock"),
        "snapshot": fields.flag("snapshot"),
    }


def decode_rows(fields: Fields, limits: FrameLimits) -> RowsFrame:
    common = _piece_of_cut(fields)
    heads = tuple(
        _decode_head(value, f"kind 'rows', run {number}", limits)
        for number, value in enumerate(fields.array("runs", limits.runs))
    )
    num_rows, num_dead = sum(head.num_rows for head in heads), sum(head.num_dead for head in heads)
    if num_rows + num_dead > limits.rows:
        raise FrameError(f"more than {limits.rows} ids in all", "kind 'rows', field 'runs'")
    shuffled, delta = _decode_parts(fields, "shuffled", PARTS), _decode_parts(fields, "delta", NUMBERS)
    versions_n = _numbers(fields, "versions", limits, num_rows, shuffled, delta)
    if num_rows and int(versions_n.min()) <= 0:
        raise FrameError("a version is not above 0: such rows are never sent", "kind 'rows', field 'versions'")
    rows_b = fields.uint8s("rows", sum(head.num_rows * head.row_bytes for head in heads))
    rows = RowRuns(
        heads=heads,
        ids_n=_numbers(fields, "ids", limits, num_rows, shuffled, delta),
        versions_n=versions_n,
        rows_b=unshuffle_rows(rows_b, heads) if "rows" in shuffled else rows_b,
        tombstones_m=_numbers(fields, "dead", limits, num_dead, shuffled, delta),
        columns=_decode_columns(fields.array("columns", 16 * limits.columns, optional=True), heads),
    )
    return RowsFrame(**common, rows=rows, shuffled=shuffled, delta=delta)


def _decode_parts(fields: Fields, name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    parts = fields.array(name, len(known), optional=True)
    if any(type(part) is not str or part not in known for part in parts) or len(set(parts)) != len(parts):
        raise FrameError(f"expected some of {', '.join(known)}, each once", f"kind 'rows', field {name!r}")
    return tuple(parts)


def _numbers(
    fields: Fields, name: str, limits: FrameLimits, count: int, shuffled: tuple[str, ...], delta: tuple[str, ...]
) -> Int64s:
    """``count`` of them. Only dead ids may be absent."""
    numbers_n = fields.int64s(name, limits.rows, optional=name == "dead", count=count)
    if name in shuffled:
        numbers_n = unshuffle_numbers(numbers_n.view(np.uint8))
    return sums(numbers_n) if name in delta else numbers_n


def _decode_head(value: Any, where: str, limits: FrameLimits) -> RunHead:
    if not isinstance(value, list) or [type(part) for part in value] != [str, int, int, int]:
        raise FrameError("a run is [table, rows, bytes of a row, dead ids]", where)
    head = RunHead(*value)
    if not re.fullmatch(NAME_PATTERN, head.table):
        raise FrameError(f"table {head.table[:200]!r} does not match {NAME_PATTERN}", where)
    low = 1 if head.num_rows else 0
    for what, number, least, most in (
        ("rows", head.num_rows, 0, limits.rows),
        ("bytes of a row", head.row_bytes, low, limits.content_bytes * low),
        ("dead ids", head.num_dead, 0, limits.rows),
    ):
        if not least <= number <= most:
            raise FrameError(f"{number} {what} is not within {least} .. {most}", where)
    return head


def _decode_columns(values: list[Any], heads: tuple[RunHead, ...]) -> dict[int, dict[str, RowBytes]]:
    columns: dict[int, dict[str, RowBytes]] = {}
    for value in values:
        where = "kind 'rows', field 'columns'"
        if not isinstance(value, list) or [type(part) for part in value] != [int, str, bytes]:
            raise FrameError("a column that rides along is [run, name, bytes]", where)
        number, name, data = value
        if not 0 <= number < len(heads) or name in columns.setdefault(number, {}):
            raise FrameError(f"run {number}, column {name[:128]!r}: no such run, or named twice", where)
        columns[number][name] = split_rows(data, heads[number].num_rows, f"{where}, column {name[:128]!r}")
    return columns


def decode_dense(fields: Fields, limits: FrameLimits) -> DenseFrame:
    common = _piece_of_cut(fields)
    pieces = tuple(
        _decode_piece(Fields(value, f"kind 'dense', piece {number}"), limits)
        for number, value in enumerate(fields.array("pieces", limits.pieces))
    )
    return DenseFrame(**common, pieces=pieces)


def _decode_piece(fields: Fields, limits: FrameLimits) -> DensePiece:
    dtype = fields.choice("dtype", tuple(DTYPES))
    shape = fields.array("shape", 16)
    if any(type(size) is not int or not 0 <= size <= MAX_INT64 for size in shape):
        raise FrameError("a shape is a list of sizes", fields.where)
    total = prod(shape) * DTYPES[dtype]
    piece = DensePiece(fields.name("name"), dtype, tuple(shape), fields.integer("start"), fields.data("data"))
    end = piece.start + len(piece.data)
    if total > limits.dense_bytes or end > total:
        raise FrameError(f"bytes {piece.start} .. {end} of {total} (limit {limits.dense_bytes})", fields.where)
    fields.end()
    return piece


def decode_commit(fields: Fields, limits: FrameLimits) -> CommitFrame:
    ended = fields.int64s("ended", limits.content_bytes // 8)
    if len(ended) % 2:
        raise FrameError("expected pairs of (step, clock)", "kind 'commit', field 'ended'")
    return CommitFrame(
        generation=fields.integer("gen", 0, MAX_GENERATION),
        cut=fields.integer("cut"),
        step=fields.integer("step", 0, MAX_STEP),
        clock_ns=fields.integer("clock"),
        kind=cast(Any, fields.choice("type", ("cut", "snapshot"))),
        previous=fields.position("previous"),
        num_frames=fields.integer("frames", 0, MAX_NUMBER + 1),
        num_rows=fields.integer("rows"),
        num_tombstones=fields.integer("dead"),
        digest=fields.integer("digest", 0, MAX_UINT64),
        dense_digest=fields.optional_integer("dense"),
        ended_k2=ended.reshape(-1, 2),
        end=fields.flag("end"),
        rewind=fields.flag("rewind"),
        unsent=fields.optional_integer("unsent", MAX_INT64),
        oldest_ns=fields.optional_integer("oldest", MAX_INT64),
        oldest_step=fields.optional_integer("oldest_step", MAX_STEP),
    )


DECODERS: Mapping[str, Callable[[Fields, FrameLimits], Frame]] = {
    "header": decode_header,
    "rows": decode_rows,
    "dense": decode_dense,
    "commit": decode_commit,
}
