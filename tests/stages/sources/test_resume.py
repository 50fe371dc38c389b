"""A cursor taken anywhere leads to exactly the batches that would have followed, whatever the options."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.flow.stage import Source
from stages.logs import csv_stream, parquet_stream
from stages.logs.errors import ChangedLog, EmptyLog
from stages.sources import ParquetSource, SyntheticSource, synthetic
from tests.stages.driving import Drive, bags_of, drive, drive_async, plain
from tests.stages.sources.csv_logs import csv_source, write

SUFFIXES = ("", ".gz", ".zst")


@contextmanager
def small_pieces(size: int) -> Iterator[None]:
    """Reads, blocks and pieces so small that every border is met."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_stream, "READ_BYTES", size)
        patch.setattr(csv_stream, "BLOCK_BYTES", size)
        patch.setattr(parquet_stream, "PIECE_ROWS", max(1, size // 8))
        patch.setattr(synthetic, "BLOCK_SAMPLES", max(1, size // 8))
        yield


ARRANGEMENTS = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 7),
        "shuffle": st.sampled_from([0, 0, 1, 3, 8, 100]),
        "epochs": st.integers(1, 3),
        "drop_last": st.booleans(),
        "read_ahead": st.integers(1, 3),
        "rows": st.fixed_dictionaries({"skip": st.integers(0, 6), "take": st.none() | st.integers(1, 12)}),
    }
)


def check_every_split(make: Callable[[], Source], data: st.DataObject) -> Drive:
    """Resume behind one batch, chosen by Hypothesis; then once more behind a later one."""
    whole = asyncio.run(drive_async(make))
    if isinstance(whole.error, EmptyLog):
        assert not whole.batches
        return whole
    assert whole.error is None
    if not whole.batches:
        return whole
    expected = [plain(batch) for batch in whole.batches]
    first = data.draw(st.integers(0, len(expected) - 1))
    broken = drive(make, limit=first + 1)
    assert [plain(batch) for batch in broken.batches] == expected[: first + 1]
    assert broken.states[-1] == whole.states[first]
    carried = msgpack.unpackb(msgpack.packb(broken.states[-1]))
    rest = drive(make, carried)
    assert [plain(batch) for batch in rest.batches] == expected[first + 1 :]
    assert rest.states == whole.states[first + 1 :]
    assert skipped(broken) + skipped(rest) == skipped(whole)
    return whole


def contents(found: Drive) -> list[Any]:
    """What does not depend on where blocks begin."""
    return [{key: value for key, value in plain(batch).items() if key != "cursor"} for batch in found.batches]


def skipped(found: Drive) -> int:
    return int(found.counts.get("skipped", 0))


@given(
    files=st.lists(st.lists(st.booleans(), max_size=9), min_size=1, max_size=4),
    suffixes=st.lists(st.sampled_from(SUFFIXES), min_size=4, max_size=4),
    options=ARRANGEMENTS,
    pieces=st.tuples(st.sampled_from([7, 40, 10_000]), st.sampled_from([7, 40, 10_000])),
    data=st.data(),
)
@settings(max_examples=25)
def test_csv_resumes_anywhere(
    files: list[list[bool]], suffixes: list[str], options: dict[str, Any], pieces: tuple[int, int], data: st.DataObject
) -> None:
    """``files``: which of the lines are good. The empty file in front keeps the log from being refused as empty."""
    with tempfile.TemporaryDirectory() as name:
        rows = iter(range(1000))
        write(Path(name) / "log-0", [f"{next(rows)},1,0.5,1" for _ in range(options["rows"]["skip"] + 1)])
        for number, (goods, suffix) in enumerate(zip(files, suffixes, strict=False), start=1):
            lines = [f"{next(rows)},{i},{i},1" if good else "bad,1,0,1" for i, good in enumerate(goods)]
            write(Path(name) / f"log-{number}{suffix}", lines)
        make = csv_source(Path(name) / "log-*", on_error="skip", max_skipped=1000, **options)
        with small_pieces(pieces[0]):
            whole = check_every_split(make, data)
        with small_pieces(pieces[1]):
            again = drive(make)
            assert contents(again) == contents(whole)
            if whole.states:
                at = data.draw(st.integers(0, len(whole.states) - 1))
                assert contents(drive(make, whole.states[at])) == contents(whole)[at + 1 :]


@given(
    files=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    group_rows=st.integers(1, 6),
    options=ARRANGEMENTS,
    piece=st.sampled_from([8, 24, 1000]),
    data=st.data(),
)
@settings(max_examples=25)
def test_parquet_resumes_anywhere(
    files: list[int], group_rows: int, options: dict[str, Any], piece: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name, small_pieces(piece):
        rows = 0
        for number, count in enumerate([options["rows"]["skip"] + 1, *files]):
            users = [None if row % 5 == 4 else row for row in range(rows, rows + count)]
            tags = [list(range(row % 3)) for row in range(rows, rows + count)]
            bad = ["x" if row % 7 == 6 else "1" for row in range(rows, rows + count)]
            columns = {"user": pa.array(users, pa.int64()), "tags": pa.array(tags, pa.list_(pa.int32())), "item": bad}
            table = pa.table({**columns, "item": pa.array(bad, pa.string())})
            pyarrow.parquet.write_table(table, Path(name) / f"{number}.parquet", row_group_size=group_rows)
            rows += count
        chosen = {
            "paths": f"{name}/*.parquet",
            "features": {"user": "user", "tags": "tags", "item": "item"},
            "label": 1,
            "on_error": "skip",
            "max_skipped": 1000,
            **options,
        }
        check_every_split(lambda: ParquetSource(ParquetSource.Options.model_validate(chosen)), data)


@given(options=ARRANGEMENTS, samples=st.integers(1, 30), piece=st.sampled_from([8, 48, 10_000]), data=st.data())
@settings(max_examples=25)
def test_synthetic_resumes_anywhere(options: dict[str, Any], samples: int, piece: int, data: st.DataObject) -> None:
    meta = {"buckets": 30, "identities": 2, "metadata": {"dtype": "float32", "width": 3}}
    features = {"a": {"ids": 50, "bag": [0, 3], "weights": True, **meta}, "b": {"ids": 40, "reuse": 2022}}
    chosen = {"samples": samples, "features": features, "dense": 2, **options}
    with small_pieces(piece):
        check_every_split(lambda: SyntheticSource(SyntheticSource.Options.model_validate(chosen)), data)


def test_a_prepared_log_resumes(tmp_path: Path) -> None:
    write(tmp_path / "log", [f"{i},1,{-i},1" for i in range(20)])
    prepare = {"cache_dir": str(tmp_path / "cache"), "holdout": 0.25}
    make = csv_source(tmp_path / "log", time="x", dense=[], prepare=prepare)
    whole = drive(make)
    assert bags_of(whole.batches, "user") == [[i] for i in range(19, 4, -1)]
    rest = drive(make, whole.states[1])
    assert bags_of(rest.batches, "user") == [[i] for i in range(11, 4, -1)]
    write(tmp_path / "log", [f"{i},1,{-i},1" for i in range(21)])
    with pytest.raises(ChangedLog):
        drive(make, whole.states[1])


def test_a_resumed_log_must_begin_with_the_files_that_were_read(tmp_path: Path) -> None:
    for name in ("b", "d"):
        write(tmp_path / f"{name}.csv", [f"{i},1,0,1" for i in range(6)])
    make = csv_source(tmp_path / "*.csv")
    state = drive(make, limit=2).states[-1]
    write(tmp_path / "e.csv", ["77,1,0,1"])
    assert bags_of(drive(make, state).batches, "user")[-1] == [77]
    write(tmp_path / "c.csv", ["88,1,0,1"])
    with pytest.raises(ChangedLog, match=r"d\.csv"):
        drive(make, state)
    (tmp_path / "d.csv").unlink()
    with pytest.raises(ChangedLog, match=r"d\.csv is gone"):
        drive(make, state)


def test_a_log_read_twice_must_not_change_at_all(tmp_path: Path) -> None:
    write(tmp_path / "b.csv", [f"{i},1,0,1" for i in range(6)])
    make = csv_source(tmp_path / "*.csv", epochs=2)
    state = drive(make, limit=1).states[-1]
    write(tmp_path / "c.csv", ["77,1,0,1"])
    with pytest.raises(ChangedLog, match="read more than once"):
        drive(make, state)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shuffle", [0, 7])
def test_a_cursor_may_be_resumed_with_blocks_of_another_size(tmp_path: Path, suffix: str, shuffle: int) -> None:
    path = write(tmp_path / f"log{suffix}", [f"{i},1,0.5,1" for i in range(20)])
    make = csv_source(path, batch_size=3, shuffle=shuffle)
    with small_pieces(10_000):
        whole = drive(make)
    for at, state in enumerate(whole.states):
        with small_pieces(7):
            assert contents(drive(make, state)) == contents(whole)[at + 1 :]
