"""Random frames, and what it means that two are the same."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from hypothesis import strategies as st

from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.rows.version import MAX_GENERATION, MAX_STEP, pack_version
from pipeline.wire.dense import DTYPES
from pipeline.wire.frames import (
    CommitFrame,
    CutPosition,
    DenseFrame,
    DensePiece,
    Frame,
    HeaderFrame,
    RowsFrame,
    StreamedTable,
)
from pipeline.wire.row_runs import RowRuns, TableRows
from pipeline.wire.shuffle import NUMBERS, PARTS
from tests.wire.parts import join_runs

MAX_INT64 = (1 << 63) - 1
names = st.from_regex(r"[A-Za-z0-9_.-]{1,24}", fullmatch=True)
generations = st.integers(0, MAX_GENERATION)
steps = st.integers(0, MAX_STEP)
int64s = st.integers(-(1 << 63), MAX_INT64)
clocks = st.integers(0, MAX_INT64)
seeds = st.integers(0, (1 << 32) - 1)


def _array(values: list[int]) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _rows(seed: int, count: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, width), dtype=np.uint8)


@cache
def a_dictionary() -> bytes:
    """As zstd trains one."""
    rng = np.random.default_rng(5)
    samples: list[Any] = [b"".join(b"some rows %d " % n for n in rng.integers(0, 1000, 20)) for _ in range(500)]
    return zstandard.train_dictionary(2048, samples).as_bytes()


@st.composite
def layouts(draw: st.DrawFn) -> RowLayout:
    states = draw(st.lists(names.filter(lambda name: name != "weight"), max_size=3, unique=True))
    columns = [Column("weight", "float32", draw(st.integers(1, 300)), "weight")]
    for name in states:
        dtype = draw(st.sampled_from(sorted(DTYPES)))
        columns.append(Column(name, dtype, draw(st.integers(1, 9)), draw(st.sampled_from(["state", "meta"]))))
    return RowLayout(tuple(columns))


@st.composite
def tables(draw: st.DrawFn) -> StreamedTable:
    low, high, mean, std = (draw(st.floats(allow_nan=False, allow_infinity=False)) for _ in range(4))
    initializer = Initializer(draw(st.sampled_from(["uniform", "normal", "zeros"])), low, high, mean, std)
    default = draw(st.none() | st.floats(allow_nan=False, allow_infinity=False))
    layout = draw(layouts())
    carries = tuple(column.name for column in layout.columns[1:] if draw(st.booleans()))
    return StreamedTable(TableSpec(draw(names), layout, initializer, draw(int64s), default), draw(names), carries)


@st.composite
def headers(draw: st.DrawFn) -> HeaderFrame:
    num_shards = draw(st.integers(1, 1 << 16))
    return HeaderFrame(
        run_id=draw(names),
        writer=draw(names),
        shard=draw(st.integers(0, num_shards - 1)),
        num_shards=num_shards,
        generation=draw(generations),
        epoch=draw(names),
        created_ns=draw(clocks),
        tables=tuple(draw(st.lists(tables(), max_size=3, unique_by=lambda table: table.spec.name))),
        best_effort=draw(st.booleans()),
        continues=draw(st.none() | generations),
        dictionary=draw(st.sampled_from([b"", a_dictionary()])),
    )


@st.composite
def table_rows(draw: st.DrawFn) -> TableRows:
    ids = draw(st.lists(int64s, max_size=20, unique=True))
    seed, count = draw(seeds), len(ids)
    rng = np.random.default_rng(seed)
    versions = [pack_version(int(rng.integers(0, 9)), int(rng.integers(1, MAX_STEP))) for _ in ids]
    width = draw(st.integers(1, 70)) if count else 0
    columns = {name: _rows(seed, count, 3) for name in draw(st.lists(names, max_size=2, unique=True))} if count else {}
    return TableRows(
        table=draw(names),
        ids_n=_array(ids),
        rows_nb=_rows(seed, count, width),
        versions_n=_array(versions),
        tombstones_m=_array(draw(st.lists(int64s, max_size=5, unique=True))),
        columns=columns,
    )


@st.composite
def rows_frames(draw: st.DrawFn) -> RowsFrame:
    return RowsFrame(
        generation=draw(generations),
        cut=draw(clocks),
        number=draw(st.integers(0, (1 << 31) - 1)),
        step=draw(steps),
        clock_ns=draw(clocks),
        snapshot=draw(st.booleans()),
        rows=join_runs(draw(st.lists(table_rows(), max_size=3))),
        shuffled=tuple(draw(st.lists(st.sampled_from(PARTS), unique=True))),
        delta=tuple(draw(st.lists(st.sampled_from(NUMBERS), unique=True))),
    )


@st.composite
def pieces(draw: st.DrawFn) -> DensePiece:
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=3)))
    total = int(np.prod(shape, dtype=np.int64)) * DTYPES[dtype]
    start = draw(st.integers(0, total))
    data = np.random.default_rng(draw(seeds)).bytes(draw(st.integers(0, total - start)))
    return DensePiece(draw(names), dtype, shape, start, data)


@st.composite
def dense_frames(draw: st.DrawFn) -> DenseFrame:
    return DenseFrame(
        generation=draw(generations),
        cut=draw(clocks),
        number=draw(st.integers(0, (1 << 31) - 1)),
        step=draw(steps),
        clock_ns=draw(clocks),
        snapshot=draw(st.booleans()),
        pieces=tuple(draw(st.lists(pieces(), max_size=3))),
    )


@st.composite
def commits(draw: st.DrawFn) -> CommitFrame:
    ended = draw(st.lists(st.tuples(steps, clocks), max_size=5))
    return CommitFrame(
        generation=draw(generations),
        cut=draw(clocks),
        step=draw(steps),
        clock_ns=draw(clocks),
        kind=draw(st.sampled_from(["cut", "snapshot"])),
        previous=CutPosition(draw(generations), draw(clocks)),
        num_frames=draw(st.integers(0, 1 << 31)),
        num_rows=draw(clocks),
        num_tombstones=draw(clocks),
        digest=draw(st.integers(0, (1 << 64) - 1)),
        dense_digest=draw(st.none() | st.integers(0, (1 << 64) - 1)),
        ended_k2=np.array(ended, dtype=np.int64).reshape(-1, 2),
        end=draw(st.booleans()),
        rewind=draw(st.booleans()),
        unsent=draw(st.none() | clocks),
        oldest_ns=draw(st.none() | clocks),
        oldest_step=draw(st.none() | steps),
    )


frames = st.one_of(headers(), rows_frames(), dense_frames(), commits())


def plain(value: Any) -> Any:
    """A frame, or a part of one, as plain values that compare: arrays become (dtype, shape, bytes)."""
    if isinstance(value, np.ndarray):
        return (value.dtype.name, value.shape, value.tobytes())
    if isinstance(value, memoryview):
        return value.tobytes()
    if isinstance(value, RowsFrame | RowRuns | DenseFrame | DensePiece | CommitFrame | HeaderFrame):
        return (type(value), {field.name: plain(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if type(value) is tuple:
        return tuple(plain(part) for part in value)
    return value


def same(left: Frame, right: Frame) -> bool:
    return bool(plain(left) == plain(right))
