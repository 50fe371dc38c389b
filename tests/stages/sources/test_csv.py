"""What the csv source makes of a log."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from stages.logs import csv_stream
from tests.stages.driving import bags_of, drive
from tests.stages.sources.csv_logs import csv_source, write

INT64_MIN = -(2**63)


def test_every_row_arrives_once_in_order_in_batches_of_one_size(tmp_path: Path) -> None:
    rows = [f"{i},{i * 10},{i / 2},{i % 2}" for i in range(11)]
    write(tmp_path / "part-2.csv", rows[:5])
    write(tmp_path / "part-10.csv.gz", rows[5:6])
    write(tmp_path / "part-11.csv.zst", rows[6:])
    done = drive(csv_source(tmp_path / "part-*"))
    assert [batch.num_samples for batch in done.batches] == [4, 4, 3]
    assert [batch.first_row for batch in done.batches] == [0, 4, 8]
    assert bags_of(done.batches, "user") == [[i] for i in range(11)]
    assert bags_of(done.batches, "item") == [[i * 10] for i in range(11)]
    assert np.concatenate([batch.dense_bd for batch in done.batches]).tolist() == [[i / 2] for i in range(11)]
    assert np.concatenate([batch.labels_b for batch in done.batches]).tolist() == [i % 2 for i in range(11)]
    assert dict(done.batches[-1].cursor) == {"epoch": 0, "file": "part-11.csv.zst", "sample": 11}


@pytest.mark.parametrize("separator", ["\t", ";", "::", "|+|", "→"])
def test_any_text_separates_columns(tmp_path: Path, separator: str) -> None:
    write(tmp_path / "log", [separator.join(["7", "-8", "0.5", "1"])], separator.join(["user", "item", "x", "y"]))
    done = drive(csv_source(tmp_path / "log", separator=separator))
    assert bags_of(done.batches, "user") == [[7]]
    assert bags_of(done.batches, "item") == [[-8]]


def test_a_log_without_header_has_its_columns_named(tmp_path: Path) -> None:
    write(tmp_path / "log", ["1,2,0,1", "3,4,0,0"], header=None)
    done = drive(csv_source(tmp_path / "log", header=False, columns=["user", "item", "x", "y"]))
    assert bags_of(done.batches, "item") == [[2], [4]]


def test_each_file_may_order_its_columns_in_its_own_way(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ["1,2,0,1"])
    write(tmp_path / "b.csv", ["1,0,4,3"], header="y,x,item,user")
    assert bags_of(drive(csv_source(tmp_path / "*.csv")).batches, "user") == [[1], [3]]


def test_every_int64_is_an_ordinary_id(tmp_path: Path) -> None:
    ids = [INT64_MIN, -1, 0, 2**63 - 1]
    write(tmp_path / "log", [f"{i},{i},0,1" for i in ids])
    assert bags_of(drive(csv_source(tmp_path / "log")).batches, "user") == [[i] for i in ids]


def test_a_missing_id_is_an_empty_bag(tmp_path: Path) -> None:
    write(tmp_path / "log", [",5,0,1", "1,,0,1", "\\N,6,0,1"])
    done = drive(csv_source(tmp_path / "log", missing=["", "\\N"]))
    assert bags_of(done.batches, "user") == [[], [1], []]
    assert bags_of(done.batches, "item") == [[5], [], [6]]


def test_text_ids_are_hashed_by_xxh64(tmp_path: Path) -> None:
    texts = ["68fd1e64", "", "grüße", "68fd1e64"]
    write(tmp_path / "log", [f"{text},1,0,1" for text in texts])
    features = {"user": {"column": "user", "hash": "xxh64"}}
    done = drive(csv_source(tmp_path / "log", features=features))
    expected = [[] if not t else [xxhash.xxh64_intdigest(t.encode())] for t in texts]
    assert [[i % 2**64 for i in bag] for bag in bags_of(done.batches, "user")] == expected


def test_a_field_of_many_ids_is_a_bag_with_weights(tmp_path: Path) -> None:
    write(tmp_path / "log", ["1|2|3,0.5|1|2,0,1", ",,0,1", "4,8,0,1", "5||6,1|9|2,0,1"])
    features = {"tags": {"column": "user", "separator": "|", "weights": "item"}}
    done = drive(csv_source(tmp_path / "log", features=features))
    assert bags_of(done.batches, "tags") == [[1, 2, 3], [], [4], [5, 6]]
    weights_n = done.batches[0].features["tags"].weights_n
    assert weights_n is not None
    assert weights_n.tolist() == [0.5, 1, 2, 8, 1, 2]


def test_a_weight_beside_a_single_id(tmp_path: Path) -> None:
    write(tmp_path / "log", ["1,0.5,0,1", ",3,0,1"])
    done = drive(csv_source(tmp_path / "log", features={"user": {"column": "user", "weights": "item"}}))
    bags = done.batches[0].features["user"]
    assert bags.weights_n is not None
    assert (bags.ids_n.tolist(), bags.offsets_b.tolist(), bags.weights_n.tolist()) == ([1], [0, 1, 1], [0.5])


@pytest.mark.parametrize(
    ("label", "expected"),
    [("y", [0, 1, 0.5]), (1, [1, 1, 1]), ({"column": "x", "at_least": 4}, [0, 1, 1])],
)
def test_labels_come_from_a_column_a_bound_or_are_ones(tmp_path: Path, label: Any, expected: list[float]) -> None:
    write(tmp_path / "log", ["1,1,3,0", "1,1,4,1", "1,1,5.5,0.5"])
    assert drive(csv_source(tmp_path / "log", label=label)).batches[0].labels_b.tolist() == expected


def test_dense_columns_are_transformed_scaled_and_filled(tmp_path: Path) -> None:
    write(tmp_path / "log", ["1,1,7,0", "1,1,,1", "1,1,-3,1"])
    groups = [{"columns": ["x"], "transform": "log1p", "scale": 2, "missing": -1}]
    dense_bd = drive(csv_source(tmp_path / "log", dense=groups)).batches[0].dense_bd
    np.testing.assert_allclose(dense_bd[:, 0], [2 * np.log(8), -1, -2 * np.log(4)], rtol=1e-6)


def test_the_cursor_shows_the_time_of_the_last_sample(tmp_path: Path) -> None:
    write(tmp_path / "log", ["1,1,10,0", "1,1,20,1"])
    assert drive(csv_source(tmp_path / "log", time="x", dense=[])).batches[0].cursor["time"] == 20


def test_a_log_is_read_for_each_epoch_and_batches_span_them(tmp_path: Path) -> None:
    write(tmp_path / "log", [f"{i},1,0,1" for i in range(3)])
    done = drive(csv_source(tmp_path / "log", epochs=3))
    assert bags_of(done.batches, "user") == [[0], [1], [2]] * 3
    assert [batch.num_samples for batch in done.batches] == [4, 4, 1]


def test_skip_and_take_limit_each_epoch(tmp_path: Path) -> None:
    write(tmp_path / "a", [f"{i},1,0,1" for i in range(5)])
    write(tmp_path / "b", [f"{i},1,0,1" for i in range(5, 10)])
    done = drive(csv_source([tmp_path / "a", tmp_path / "b"], rows={"skip": 3, "take": 4}, epochs=2))
    assert bags_of(done.batches, "user") == [[3], [4], [5], [6]] * 2


def test_a_last_batch_that_is_not_full_can_be_left_out(tmp_path: Path) -> None:
    write(tmp_path / "log", [f"{i},1,0,1" for i in range(7)])
    assert [b.num_samples for b in drive(csv_source(tmp_path / "log", drop_last=True)).batches] == [4]


def test_quotes_line_ends_and_marks_of_other_systems_are_understood(tmp_path: Path) -> None:
    text = '\ufeffuser,"item",x,y\r\n"1",2,0,1\r\n\r\n3,4,0,1'
    (tmp_path / "log").write_bytes(text.encode())
    assert bags_of(drive(csv_source(tmp_path / "log")).batches, "user") == [[1], [3]]


def test_gzip_of_several_members_is_one_file(tmp_path: Path) -> None:
    data = [gzip.compress(part.encode()) for part in ("user,item,x,y\n1,1,0,", "1\n2,1,0,1\n", "", "3,1,0,1\n")]
    (tmp_path / "log.gz").write_bytes(b"".join(data))
    assert bags_of(drive(csv_source(tmp_path / "log.gz")).batches, "user") == [[1], [2], [3]]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_blocks_smaller_than_a_line_change_nothing(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_stream, "READ_BYTES", 5)
    monkeypatch.setattr(csv_stream, "BLOCK_BYTES", 3)
    path = write(tmp_path / f"log{suffix}", [f"{i},{10**i},0.25,1" for i in range(9)])
    done = drive(csv_source(path))
    assert bags_of(done.batches, "item") == [[10**i] for i in range(9)]
    assert [batch.num_samples for batch in done.batches] == [4, 4, 1]


def test_a_log_in_one_column_keeps_its_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("user\n1\n\n3\n")
    done = drive(csv_source(tmp_path / "log", features={"user": "user"}, dense=[], label=1))
    assert bags_of(done.batches, "user") == [[1], [], [3]]
