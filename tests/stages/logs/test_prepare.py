"""Sorting and splitting a log by time: right, stable, in bounded memory, and only once."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stages.logs import CsvFormat, Log, PrepareOptions, external_sort, find_files, prepare
from stages.logs.errors import BadLine, MissingColumns
from stages.logs.external_sort import KEY, ROW, ExternalSorter
from stages.logs.prepared import prepared_part
from tests.stages.driving import bags_of, drive
from tests.stages.sources.csv_logs import csv_source, write

MIB = 1 << 20


@given(
    pieces=st.lists(st.lists(st.integers(-3, 3), max_size=30), max_size=12),
    memory_bytes=st.sampled_from([64, 2000, MIB]),
    fan_in=st.integers(2, 5),
)
@settings(max_examples=60)
def test_the_external_sort_is_a_stable_sort(pieces: list[list[int]], memory_bytes: int, fan_in: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_sort, "FAN_IN", fan_in)
        sorter, row = ExternalSorter(Path(name), memory_bytes), 0
        for piece in pieces:
            rows = pa.array(range(row, row + len(piece)), pa.int64())
            sorter.add(pa.table({KEY: pa.array(piece, pa.int64()), ROW: rows}))
            row += len(piece)
        found = [pair for table in sorter.sorted_tables() for pair in zip(*table.to_pydict().values(), strict=True)]
        keys = [key for piece in pieces for key in piece]
        assert found == sorted((key, i) for i, key in enumerate(keys))
        assert os.listdir(name) == []


def test_a_sort_holds_no_more_in_memory_than_it_may(tmp_path: Path) -> None:
    sorter, total, memory_bytes = ExternalSorter(tmp_path, 3 * MIB), 0, 3 * MIB
    rng = np.random.default_rng()
    begin = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    for piece in range(20):
        keys = pa.array(rng.integers(0, 1000, 20_000))
        rows = pa.array(np.arange(piece * 20_000, (piece + 1) * 20_000))
        sorter.add(pa.table({KEY: keys, ROW: rows, "text": pa.array(["x" * 20] * 20_000)}))
        assert pa.total_allocated_bytes() - begin <= memory_bytes
    most, last = 0, (-1, -1)
    for table in sorter.sorted_tables():
        total += table.num_rows
        most = max(most, pool.bytes_allocated() - begin)
        first = (table[KEY][0].as_py(), table[ROW][0].as_py())
        assert last < first
        last = (table[KEY][-1].as_py(), table[ROW][-1].as_py())
    assert total == 400_000
    assert most <= memory_bytes


def csv_log(path: Path, **options: Any) -> Log:
    return Log(find_files([str(path)]), CsvFormat.model_validate(options), "x", "integer")


def test_the_split_is_by_time_and_equal_times_keep_their_order(tmp_path: Path) -> None:
    write(tmp_path / "log", [f"{i},1,{time},1" for i, time in enumerate([5, 3, 3, 9, 3, -1, 9, 3, 5, 0])])
    made = prepare(csv_log(tmp_path / "log"), tmp_path / "out", 0.3, MIB)
    users = [pyarrow.parquet.read_table(path)["user"].to_pylist() for path in (made.train, made.test)]
    assert users == [["5", "9", "1", "2", "4", "7", "0"], ["8", "3", "6"]]
    assert (made.train_rows, made.test_rows) == (7, 3)


def test_a_long_separator_goes_in_and_compressed_csv_comes_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("2::b,c::7\n1::a::8\n")
    log = Log(
        find_files([str(tmp_path / "log")]),
        CsvFormat.model_validate({"separator": "::", "header": False, "columns": ["t", "s", "n"]}),
        "t",
        "integer",
    )
    made = prepare(log, tmp_path / "out", 0.0, MIB, "csv.zst")
    with pa.CompressedInputStream(pa.OSFile(str(made.train)), "zstd") as stream:
        assert pyarrow.csv.read_csv(stream).to_pydict() == {"t": [1, 2], "s": ["a", "b,c"], "n": [8, 7]}
    assert made.test_rows == 0


def test_parquet_in_keeps_its_types(tmp_path: Path) -> None:
    table = pa.table({"t": [2.5, 0.5], "tags": pa.array([[1], [2, 3]], pa.list_(pa.int64()))})
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
    made = prepare(Log(find_files([f"{tmp_path}/log.parquet"]), None, "t", "integer"), tmp_path / "out", 0.5, MIB)
    assert pyarrow.parquet.read_table(made.train).to_pydict() == {"t": [0.5], "tags": [[2, 3]]}


def test_rows_that_cannot_be_sorted_are_refused_by_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "log", ["1,1,5,1", "2,1,soon,1"])
    with pytest.raises(BadLine, match=r"log, line 3: 'soon' in column 'x' is no integer"):
        prepare(csv_log(path), tmp_path / "out", 0.2, MIB)
    with pytest.raises(BadLine, match=r"line 2: column 'x' has no value"):
        prepare(csv_log(write(path, ["1,1,,1"])), tmp_path / "out", 0.2, MIB)
    with pytest.raises(BadLine, match=r"line 3: 2 columns instead of 4"):
        prepare(csv_log(write(path, ["1,1,1,1", "1,1"])), tmp_path / "out", 0.2, MIB)
    with pytest.raises(MissingColumns, match="no column 'x'"):
        prepare(csv_log(write(path, ["1"], header="a")), tmp_path / "out", 0.2, MIB)
    assert not list(tmp_path.glob("out/runs-*"))


def test_a_part_is_prepared_once_and_again_when_anything_changes(tmp_path: Path) -> None:
    write(tmp_path / "log", [f"{i},1,{-i},1" for i in range(10)])
    said: list[str] = []

    def part(**options: Any) -> str:
        chosen = PrepareOptions.model_validate({"cache_dir": str(tmp_path / "cache"), **options})
        csv = CsvFormat.model_validate({})
        return prepared_part(chosen, "x", [str(tmp_path / "log")], csv, said.append).path

    first = part()
    assert (part(), part(part="test")) == (first, first.replace("train", "test"))
    assert len(said) == 2
    assert part(holdout=0.5) != first
    write(tmp_path / "log", ["1,1,1,1"])
    assert part() != first
    os.utime(tmp_path / "log", ns=(1, 1))
    part()
    assert len(os.listdir(tmp_path / "cache")) == 4
    assert len(said) == 8


def test_a_failed_preparation_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    write(tmp_path / "log", ["1,1,1,1", "2,1,oops,1"])
    options = PrepareOptions.model_validate({"cache_dir": str(tmp_path / "cache")})
    with pytest.raises(BadLine):
        prepared_part(options, "x", [str(tmp_path / "log")], CsvFormat.model_validate({}), lambda _: None)
    assert os.listdir(tmp_path / "cache") == []


def test_sources_read_the_parts(tmp_path: Path) -> None:
    path = write(tmp_path / "log", [f"{'' if i == 3 else i},1,{-i},1" for i in range(10)])
    options = {"cache_dir": str(tmp_path / "cache"), "holdout": 0.2}
    train = drive(csv_source(path, prepare={"sort": "x", **options}, dense=[]))
    test = drive(csv_source(path, prepare={"sort": "x", "part": "test", **options}, dense=[]))
    assert bags_of(train.batches, "user") == [[9], [8], [7], [6], [5], [4], [], [2]]
    assert bags_of(test.batches, "user") == [[1], [0]]


def test_the_tool_prepares_a_log(tmp_path: Path) -> None:
    import typer

    from tools.prepare import main

    app = typer.Typer()
    app.command()(main)
    path = write(tmp_path / "log.csv.gz", [f"{i},1,{-i},1" for i in range(5)])
    done = CliRunner().invoke(app, [str(path), "--sort", "x", "--out", str(tmp_path / "out"), "--holdout", "0.4"])
    assert done.exit_code == 0, done.output
    assert pyarrow.parquet.read_table(tmp_path / "out" / "test.parquet")["user"].to_pylist() == ["1", "0"]
    refused = CliRunner().invoke(app, [str(path), "--sort", "time", "--out", str(tmp_path / "out")])
    assert refused.exit_code == 1
    assert "no column 'time'" in refused.output
