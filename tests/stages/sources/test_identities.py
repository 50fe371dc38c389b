"""What sources bring beside ids for meta columns: raw ids behind buckets, and columns of a log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from pipeline.rows.buckets import bucket_ids
from pipeline.rows.hashing import hash_text
from stages.items import FeatureIds
from stages.logs.errors import BadLine
from stages.rebatch import pack, unpack
from stages.sources import ParquetSource, SyntheticSource
from stages.sources.samples import Samples
from tests.stages.driving import bags_of, drive
from tests.stages.sources.csv_logs import csv_source, write


def only_bags(done: Any, name: str) -> FeatureIds:
    """Of a source that yields one batch."""
    (batch,) = done.batches
    bags: FeatureIds = batch.features[name]
    return bags


def lists(bags: FeatureIds) -> list[Any]:
    return [None if part is None else part.tolist() for part in (bags.ids_n, *bags.beside)]


def test_ids_in_buckets_keep_the_raw_id(tmp_path: Path) -> None:
    raw = [10**15, -3, 2**63 - 1, 10**15]
    write(tmp_path / "log", [f"{number},1,0,1" for number in raw])
    features = {"user": {"column": "user", "buckets": 100, "identities": "raw"}, "item": "item"}
    done = drive(csv_source(tmp_path / "log", features=features))
    expected = bucket_ids(np.array(raw), 100).tolist()
    assert lists(only_bags(done, "user")) == [expected, None, [[number] for number in raw], None]
    assert lists(only_bags(done, "item"))[1:] == [None, None, None]


def test_the_raw_id_of_a_text_is_its_hash(tmp_path: Path) -> None:
    write(tmp_path / "log", ["a,1,0,1", ",2,0,1", "b,3,0,1"])
    user: dict[str, Any] = {"column": "user", "hash": "xxh64", "buckets": 7, "identities": ["raw", "item"]}
    hashed = hash_text(pa.array(["a", "b"]))
    found = only_bags(drive(csv_source(tmp_path / "log", features={"user": user})), "user")
    assert lists(found) == [bucket_ids(hashed, 7).tolist(), None, [[hashed[0], 1], [hashed[1], 3]], None]


def test_columns_of_a_log_go_along_with_each_id_of_a_bag(tmp_path: Path) -> None:
    """A missing id takes its own with it."""
    write(tmp_path / "log", ["1|2|3,7|8|9,0,1", ",,0,1", "4,-5,0,1", "5||6,1|9|2,0,1"])
    metadata = {"columns": ["item", "item"], "dtype": "int8"}
    tags = {"column": "user", "separator": "|", "identities": ["item", "raw"], "metadata": metadata}
    found = only_bags(drive(csv_source(tmp_path / "log", features={"tags": tags})), "tags")
    ids, item = [1, 2, 3, 4, 5, 6], [7, 8, 9, -5, 1, 2]
    assert lists(found) == [ids, None, list(map(list, zip(item, ids, strict=True))), [[i, i] for i in item]]
    assert found.metadata_nm is not None
    assert found.metadata_nm.dtype == np.int8


def test_lists_of_a_parquet_log_go_along(tmp_path: Path) -> None:
    columns = {"tags": [[1, 2], [], [3]], "raw_tags": [[10, 20], [], [30]], "price": [[0.5, 1.5], [], [2.5]]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "log.parquet")
    tags = {"column": "tags", "identities": "raw_tags", "metadata": {"columns": ["price"], "dtype": "float32"}}
    chosen = {"paths": str(tmp_path / "log.parquet"), "features": {"tags": tags}, "label": 1}
    done = drive(lambda: ParquetSource(ParquetSource.Options.model_validate(chosen)))
    assert lists(only_bags(done, "tags")) == [[1, 2, 3], None, [[10], [20], [30]], [[0.5], [1.5], [2.5]]]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("1|2,3,0,1", "line 2: 2 ids in 'user' and 1 values in 'item'"),
        ("1|2,3|,0,1", "line 2: column 'item' has no value for an id"),
        ("1|2,3|x,0,1", "line 2: 'x' in column 'item' is no int64"),
        ("1|2,3|300,0,1", "line 2: '300' in column 'item' is no uint8"),
    ],
)
def test_values_that_cannot_be_are_bad_lines(tmp_path: Path, line: str, what: str) -> None:
    path = write(tmp_path / "log", [line, "4,5,0,1"])
    tags: dict[str, Any] = {"column": "user", "separator": "|", "identities": "item", "metadata": "item"}
    if "uint8" in what:
        tags |= {"metadata": {"columns": ["item"], "dtype": "uint8"}}
    with pytest.raises(BadLine) as caught:
        drive(csv_source(path, features={"tags": tags}))
    assert what in str(caught.value)
    done = drive(csv_source(path, features={"tags": tags}, on_error="skip", max_skipped=1))
    assert lists(only_bags(done, "tags")) == [[4], None, [[5]], [[5]]]


def test_a_shuffle_keeps_them_with_their_ids(tmp_path: Path) -> None:
    write(tmp_path / "log", [f"{i},{i + 1},0,1" for i in range(50)])
    user = {"column": "user", "buckets": 9, "identities": ["raw", "item"], "metadata": "item"}
    done = drive(csv_source(tmp_path / "log", features={"user": user}, shuffle=20, batch_size=7))
    for batch in done.batches:
        ids, _, identities, metadata = lists(batch.features["user"])
        assert ids == bucket_ids(np.array(identities)[:, 0], 9).tolist()
        assert [[raw, raw + 1] for raw, _ in identities] == identities
        assert metadata == [[item] for _, item in identities]
    raw_ids = [i for batch in done.batches for i, _ in lists(batch.features["user"])[2]]
    assert sorted(raw_ids) == list(range(50)) != raw_ids


def test_synthetic_ids_keep_theirs_and_the_number_of_their_sample() -> None:
    def make(**more: Any) -> Any:
        feature = {"ids": 1000, "bag": [0, 4], **more}
        options = SyntheticSource.Options.model_validate(
            {"samples": 300, "batch_size": 300, "features": {"a": feature}}
        )
        return drive(lambda: SyntheticSource(options))

    plain = only_bags(make(), "a")
    meta = {"identities": 3, "metadata": {"dtype": "int16", "width": 2}}
    found = only_bags(make(buckets=50, **meta), "a")
    assert plain.identities_nk is None
    assert found.identities_nk is not None
    assert found.identities_nk.tolist() == [[i, i + 1, i + 2] for i in plain.ids_n.tolist()]
    assert np.array_equal(found.ids_n, bucket_ids(plain.ids_n, 50))
    samples = [b for b, bag in enumerate(bags_of(make(**meta).batches, "a")) for _ in bag]
    assert found.metadata_nm is not None
    assert found.metadata_nm.dtype == np.int16
    assert found.metadata_nm.tolist() == [[b, 2 * b] for b in samples]
    assert np.array_equal(make().batches[0].labels_b, make(buckets=50).batches[0].labels_b)


def test_samples_come_back_from_plain_values_with_them() -> None:
    bags = FeatureIds(
        np.array([5, 6]), np.array([0, 2]), None, np.array([[1, 2], [3, 4]]), np.array([[7], [8]], np.float32)
    )
    samples = Samples(1, {"a": bags}, np.zeros((1, 0), np.float32), np.ones(1, np.float32))
    found = unpack(pack(samples)).features["a"]
    assert lists(found) == lists(bags)
    assert found.metadata_nm is not None
    assert found.metadata_nm.dtype == np.float32


def test_a_state_of_before_there_were_any_is_read() -> None:
    samples = Samples(
        1, {"a": FeatureIds(np.array([5]), np.array([0, 1]))}, np.zeros((1, 0), np.float32), np.ones(1, np.float32)
    )
    state = pack(samples)
    state["features"]["a"] = state["features"]["a"][:3]
    assert lists(unpack(state).features["a"]) == [[5], None, None, None]


def test_buckets_are_at_least_one() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        csv_source("log", features={"user": {"column": "user", "buckets": 0}})()
