"""The real logs, where they are: every row arrives, and what is known of them holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.flow.stage import Source
from stages.sources import CsvSource, ParquetSource
from tests.conftest import real_data
from tests.stages.driving import Drive, drive


def ids_of(done: Drive, feature: str) -> Any:
    return np.concatenate([batch.features[feature].ids_n for batch in done.batches])


def csv(**options: Any) -> Callable[[], Source]:
    return lambda: CsvSource(CsvSource.Options.model_validate({"batch_size": 2048, **options}))


def test_globo() -> None:
    """Two days of it: 48 files."""
    paths = f"{real_data('globo')}/clicks_hour_0[0-4]*.csv.gz"
    features = {"user": "user_id", "article": "click_article_id"}
    done = drive(csv(paths=paths, features=features, label=1, time="click_timestamp"))
    assert all(batch.num_samples == 2048 for batch in done.batches[:-1])
    assert done.batches[-1].cursor["file"] == "clicks_hour_049.csv.gz"
    assert ids_of(done, "article").shape == ids_of(done, "user").shape
    middle = drive(csv(paths=paths, features=features, label=1), done.states[100])
    assert ids_of(middle, "article").tolist() == ids_of(done, "article")[101 * 2048 :].tolist()


def test_brunch() -> None:
    features = {"user": "user", "article": "article", "author": "author", "hour": "hour"}
    chosen = {"features": features, "label": 1, "time": "hour", "rows": {"take": 300_000}, "batch_size": 2048}
    paths = f"{real_data('brunch')}/reads_*.parquet"
    done = drive(lambda: ParquetSource(ParquetSource.Options.model_validate({"paths": paths, **chosen})))
    assert sum(batch.num_samples for batch in done.batches) == 300_000
    assert (np.diff(ids_of(done, "hour")) >= 0).all()


def test_movielens_in_time_order_with_the_last_fifth_held_out(tmp_path: Path) -> None:
    log = {
        "paths": f"{real_data('ml-1m-half')}/ratings.dat.gz",
        "separator": "::",
        "header": False,
        "columns": ["user", "movie", "rating", "time"],
        "features": {"user": "user", "movie": "movie"},
        "label": {"column": "rating", "at_least": 4},
        "time": "time",
    }
    cache = {"cache_dir": str(tmp_path)}
    train = drive(csv(**log, prepare={**cache, "part": "train"}))
    test = drive(csv(**log, prepare={**cache, "part": "test"}))
    times = [batch.cursor["time"] for batch in train.batches + test.batches]
    assert times == sorted(times)
    assert [sum(batch.num_samples for batch in part.batches) for part in (train, test)] == [390_120, 97_530]
    labels_b = np.concatenate([batch.labels_b for batch in train.batches])
    assert 0.5 < labels_b.mean() < 0.65


def test_criteo() -> None:
    columns = ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
    done = drive(
        csv(
            paths=f"{real_data('criteo')}/sample.train.tsv",
            separator="\t",
            quote=None,
            header=False,
            columns=columns,
            features={name: {"column": name, "hash": "xxh64"} for name in columns[14:]},
            dense=[{"columns": columns[1:14], "transform": "log1p"}],
            label="label",
        )
    )
    assert sum(batch.num_samples for batch in done.batches) == 10_000
    assert all(np.isfinite(batch.dense_bd).all() and batch.dense_bd.shape[1] == 13 for batch in done.batches)
    assert len(np.unique(ids_of(done, "C1"))) > 10
    assert len(ids_of(done, "C19")) < 10_000
