"""Bad input is refused with file and line, or skipped and counted; what was good before it is not lost."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from stages.logs import csv_stream
from stages.logs.errors import (
    BadLine,
    CorruptLog,
    EmptyLog,
    LogError,
    MissingColumns,
    NoSuchLog,
    RepeatedColumn,
    TooManySkipped,
    TruncatedLog,
    UnreadableLog,
)
from stages.sources import CsvSource, ParquetSource
from tests.stages.driving import bags_of, drive, drive_async
from tests.stages.sources.csv_logs import csv_source, write

GOOD = [f"{i},1,0,1" for i in range(6)]


def refusal(paths: Any, kind: type[LogError], **options: Any) -> str:
    with pytest.raises(kind) as caught:
        drive(csv_source(paths, **options))
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("abc,1,0,1", "'abc' in column 'user' is no int64 id"),
        ("1.5,1,0,1", "'1.5' in column 'user' is no int64 id"),
        ("9223372036854775808,1,0,1", "'9223372036854775808' in column 'user'"),
        ("1,1,nan,1", "nan in column 'x' is not finite"),
        ("1,1,-inf,1", "-inf in column 'x' is not finite"),
        ("1,1,1e300,1", "float32 does not hold"),
        ("1,1,word,1", "'word' in column 'x' is no number"),
        ("1,1,0,", "column 'y' has no value"),
        ("1,1,0,2", "label 2.0 in 'y' is not in 0..1"),
        ("1,1,0", "3 columns instead of 4"),
        ("1,1,0,1,1", "5 columns instead of 4"),
    ],
)
def test_a_bad_line_is_refused_by_file_line_and_value(tmp_path: Path, line: str, what: str) -> None:
    path = write(tmp_path / "log", [*GOOD, "", line, *GOOD])
    message = refusal(path, BadLine)
    assert f"{path}, line 9: " in message
    assert what in message
    done = drive(csv_source(path, on_error="skip", max_skipped=1))
    assert bags_of(done.batches, "user") == [[i] for i in range(6)] * 2
    assert done.counts == {"skipped": 1}


def test_bad_lines_beyond_the_bound_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "log", ["x,1,0,1", *GOOD, "1,1", "1,1,nan,1"])
    done = drive(csv_source(path, on_error="skip", max_skipped=3))
    assert (len(bags_of(done.batches, "user")), done.counts) == (6, {"skipped": 3})
    assert "3 bad lines were met and max_skipped is 2" in refusal(path, TooManySkipped, on_error="skip", max_skipped=2)
    refusal(path, TooManySkipped, on_error="skip")


def test_bad_lines_are_counted_as_the_batches_around_them_arrive(tmp_path: Path) -> None:
    path = write(tmp_path / "log", ["x,1,0,1", "1,1,0,1", "y,1,0,1", "2,1", "3,1,0,1", "4,1,0,1", "z,1,0,1"])
    done = drive(csv_source(path, on_error="skip", max_skipped=9, batch_size=1))
    assert [state["cursor"]["reported"] for state in done.states] == [1, 3, 3]
    assert done.counts == {"skipped": 4}


def test_ids_and_weights_that_differ_in_number_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "log", ["1|2,1|2,0,1", "1|2,3,0,1"])
    features = {"tags": {"column": "user", "separator": "|", "weights": "item"}}
    assert "line 3: 2 ids in 'user' and 1 weights in 'item'" in refusal(path, BadLine, features=features)


def test_batches_before_a_bad_line_arrive_before_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_stream, "READ_BYTES", 16)
    monkeypatch.setattr(csv_stream, "BLOCK_BYTES", 8)
    path = write(tmp_path / "log", [*GOOD, *GOOD, "oops,1,0,1"])
    done = asyncio.run(drive_async(csv_source(path)))
    assert isinstance(done.error, BadLine)
    assert bags_of(done.batches, "user") == [[i] for i in (0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5)]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no-such-*.csv" in refusal(tmp_path / "no-such-*.csv", NoSuchLog)


def test_a_directory_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    assert str(tmp_path / "log") in refusal(tmp_path / "log", UnreadableLog)


def test_a_cut_gzip_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    data = gzip.compress("\n".join(["user,item,x,y", *GOOD * 50]).encode())
    (tmp_path / "cut.gz").write_bytes(data[:-20])
    assert "cut.gz, line" in refusal(tmp_path / "cut.gz", TruncatedLog)
    flipped = bytearray(data)
    flipped[-6] ^= 255
    (tmp_path / "flipped.gz").write_bytes(bytes(flipped))
    assert "the gzip stream is damaged" in refusal(tmp_path / "flipped.gz", CorruptLog)


def test_a_cut_zstd_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "log.zst", GOOD)
    path.write_bytes(path.read_bytes()[:-3])
    refusal(path, TruncatedLog)


def test_missing_columns_are_listed_with_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "log", GOOD)
    message = refusal(path, MissingColumns, features={"user": "usr", "item": "item"})
    assert "no column 'usr'; there are ['user', 'item', 'x', 'y']" in message


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    refusal(write(tmp_path / "log", ["1,2,3,4,5"], header="user,item,x,y,user"), RepeatedColumn)


def test_a_quoted_line_break_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "log", ['"1\n1",1,0,1', *GOOD])
    assert "line break" in refusal(path, CorruptLog, features={"user": {"column": "user", "hash": "xxh64"}})


def test_a_line_without_end_is_refused_before_it_fills_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_stream, "READ_BYTES", 64)
    monkeypatch.setattr(csv_stream, "BLOCK_BYTES", 64)
    monkeypatch.setattr(csv_stream, "MAX_LINE_BYTES", 100)
    write(tmp_path / "log", ["1" * 500])
    assert "longer than 100 bytes" in refusal(tmp_path / "log", CorruptLog)


def test_an_empty_file_among_others_is_counted_and_an_empty_log_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [])
    (tmp_path / "b.csv").write_bytes(b"")
    assert "a.csv" in refusal(tmp_path / "*.csv", EmptyLog)
    write(tmp_path / "c.csv", GOOD)
    done = drive(csv_source(tmp_path / "*.csv"))
    assert len(bags_of(done.batches, "user")) == 6
    assert done.counts == {"empty_files": 2}


def parquet(path: Path, **options: Any) -> Any:
    chosen = {"paths": str(path), "features": {"user": "user"}, "label": 1, **options}
    return lambda: ParquetSource(ParquetSource.Options.model_validate(chosen))


def test_parquet_errors_name_file_row_and_value(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pyarrow.parquet.write_table(pa.table({"user": ["1", "2", "x", "4"], "x": [1.0, None, 2.0, float("nan")]}), path)
    with pytest.raises(BadLine, match=r"log\.parquet, row 3: 'x' in column 'user'"):
        drive(parquet(path))
    with pytest.raises(BadLine, match="row 4: nan in column 'x'"):
        drive(parquet(path, features={"u": {"column": "user", "hash": "xxh64"}}, dense=["x"]))
    with pytest.raises(MissingColumns, match=r"there are \['user', 'x'\]"):
        drive(parquet(path, features={"u": "uzer"}))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UnreadableLog, match=r"log\.parquet"):
        drive(parquet(path))


def test_a_column_of_a_type_that_holds_no_ids_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pyarrow.parquet.write_table(pa.table({"user": [{"a": 1}, {"a": 2}]}), path)
    with pytest.raises(BadLine, match="column 'user' holds struct"):
        drive(parquet(path))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"columns": ["user"]}, "exactly when `header` is false"),
        ({"header": False}, "exactly when `header` is false"),
        ({"follow": True, "epochs": 2}, "`follow` and `epochs` exclude each other"),
        ({"follow": True, "paths": ["a", "b"]}, "one pattern"),
        ({"prepare": {}}, "name the column in `time`"),
        ({"dense": ["x", "x"]}, "twice"),
        ({"label": 2}, "Input should be 1"),
        ({"batch_sise": 3}, "Extra inputs"),
        ({"features": {}}, "at least 1 item"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        CsvSource.Options.model_validate({"paths": "log", "features": {"user": "user"}, "label": 1, **options})
