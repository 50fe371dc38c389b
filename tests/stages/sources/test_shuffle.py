"""The shuffle permutes within windows, by a seed, and loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.stages.driving import bags_of, drive
from tests.stages.sources.csv_logs import csv_source, write


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "log", [f"{i},{i},{i},1" for i in range(50)])


def users(log: Path, seed: int = 7, **options: Any) -> list[int]:
    return [bag[0] for bag in bags_of(drive(csv_source(log, **options), seed=seed).batches, "user")]


def test_each_window_is_a_permutation_of_its_own_samples(log: Path) -> None:
    found = users(log, shuffle=20)
    for start, stop in ((0, 20), (20, 40), (40, 50)):
        assert sorted(found[start:stop]) == list(range(start, stop))
        assert found[start:stop] != list(range(start, stop))
    assert [user + 20 for user in found[:20]] != found[20:40]


def test_columns_of_a_sample_stay_together(log: Path) -> None:
    for batch in drive(csv_source(log, shuffle=30)).batches:
        ids = batch.features["user"].ids_n
        assert ids.tolist() == batch.features["item"].ids_n.tolist() == batch.dense_bd[:, 0].tolist()


def test_the_seed_decides_the_order(log: Path) -> None:
    assert users(log, shuffle=50) == users(log, shuffle=50)
    assert users(log, shuffle=50, seed=8) != users(log, shuffle=50)
    assert drive(csv_source(log, shuffle=50, seed=3)).batches[0].labels_b.tolist() == [1, 1, 1, 1]


def test_epochs_are_shuffled_differently_and_batch_sizes_change_nothing(log: Path) -> None:
    found = users(log, shuffle=50, epochs=2)
    assert sorted(found[:50]) == sorted(found[50:]) == list(range(50))
    assert found[:50] != found[50:]
    assert users(log, shuffle=50, epochs=2, batch_size=13) == found
