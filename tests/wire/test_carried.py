"""Columns that ride along: a table's rows have those that its header names, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from pipeline.rows import Column, Initializer, RowLayout, TableSpec
from pipeline.wire import FrameError, HeaderFrame, StreamedTable, TableRows, decode_frame, encode_frame, split_runs
from pipeline.wire.row_runs import RowBytes
from tests.wire.parts import join_runs
from tests.wire.test_format import HEADER

LAYOUT = RowLayout(
    (
        Column("weight", "float32", 2, "weight"),
        Column("momentum", "float32", 2, "state"),
        Column("count", "int64", 1, "state"),
        Column("raw", "int64", 3, "meta"),
    )
)
SPEC = TableSpec("items", LAYOUT, Initializer("zeros"), seed=7)
COLUMNS = {"momentum": np.zeros((2, 8), np.uint8), "raw": np.ones((2, 24), np.uint8)}


def header(*carries: str) -> HeaderFrame:
    return replace(HEADER, tables=(StreamedTable(SPEC, "fp32", carries),))


def part(columns: Mapping[str, RowBytes]) -> TableRows:
    ids = np.array([3, -3])
    return TableRows("items", ids, np.zeros((2, 8), np.uint8), np.array([1, 1]), columns=columns)


def test_a_run_with_the_columns_that_the_header_names_is_taken() -> None:
    (block,) = split_runs(join_runs([part(COLUMNS)]), header("momentum", "raw"))
    assert block.weights_nd.tolist() == [[0, 0], [0, 0]]
    split_runs(join_runs([part({})]), header())


@pytest.mark.parametrize(
    ("columns", "carries", "what"),
    [
        (COLUMNS, (), r"columns \['momentum', 'raw'\] ride along, by the header \[\] do"),
        ({}, ("raw",), r"columns \[\] ride along, by the header \['raw'\] do"),
        (COLUMNS, ("momentum", "count", "raw"), "ride along, by the header"),
        (COLUMNS, ("raw",), "ride along, by the header"),
        ({"raw": COLUMNS["momentum"]}, ("raw",), "column 'raw' has 8 bytes a row, by the header 24"),
    ],
)
def test_any_other_run_is_refused(columns: Mapping[str, RowBytes], carries: tuple[str, ...], what: str) -> None:
    with pytest.raises(FrameError, match=f"rows of table 'items': .*{what}"):
        split_runs(join_runs([part(columns)]), header(*carries))


def test_a_run_of_dead_ids_alone_has_none() -> None:
    none = np.empty(0, np.int64)
    gone = TableRows("items", none, np.empty((0, 8), np.uint8), none, np.array([9]))
    split_runs(join_runs([gone]), header("raw"))


@pytest.mark.parametrize("carries", [("weight",), ("raw", "momentum"), ("raw", "raw"), ("height",), (7,)])
def test_a_header_names_columns_of_the_layout_in_their_order(carries: tuple[str, ...]) -> None:
    with pytest.raises(FrameError, match=r"'carries': expected some of \['momentum', 'count', 'raw'\], each once"):
        decode_frame(encode_frame(header(*carries)))
