"""The bench of bytes on the wire: the batches it asks about, and that a replica's AUC is that of the rows it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.files import RealFiles
from pipeline.replica import Replica
from pipeline.rowlog import CheckpointReader
from pipeline.rows.codec import find_codec
from tools.bench.paced_run import Clock, future, measure
from tools.bench.wire_bytes import auc, compare, lacking, replica_weights, trainer_weights

STEPS, COUNT = 30, 4
TABLES = ("user", "item")
SMALL = ["replica.embedded=false", "store.l1_rows=20000"]


@pytest.mark.parametrize("codec", ["fp32", "int4"])
def test_a_replica_is_asked_what_it_holds_on_the_batches_behind_the_run(tmp_path: Path, codec: str) -> None:
    behind = future("quickstart", tmp_path / "future", STEPS, COUNT, SMALL)
    overrides = [f"run.steps={STEPS}", f"stages.stream.codec={codec}", *SMALL]
    summary = measure("quickstart", tmp_path / "run", 1e9, overrides)
    assert summary["steps"] == STEPS
    assert all(0 < waited_s < summary["seconds"] for waited_s in summary["oldest_s"])
    assert len(summary["oldest_s"]) <= summary["cuts"]
    assert len(behind[0]) == COUNT
    mine, theirs = compare(tmp_path / "run", TABLES, *behind)
    assert (mine == theirs) is (codec == "fp32")
    of_trainer = trainer_weights(CheckpointReader.newest(RealFiles(), str(tmp_path / "run" / "checkpoints")))
    with Replica(tmp_path / "run") as replica:
        replica.apply_available()
        with replica.view() as view:
            of_replica = replica_weights(view, ("user",), of_trainer)
            ids_n, exact = view.ids("user")[:50], find_codec(codec)
            sent_nd = exact.decode(exact.encode(of_trainer("user", ids_n)), 32)
            assert np.array_equal(of_replica("user", ids_n), sent_nd)
            assert np.array_equal(of_replica("item", ids_n), of_trainer("item", ids_n))


def test_the_batches_behind_a_run_are_those_a_longer_one_is_trained_on(tmp_path: Path) -> None:
    first, features, model = future("quickstart", tmp_path / "a", 10, 6, SMALL)
    later, _, _ = future("quickstart", tmp_path / "b", 13, 3, SMALL)
    for one, other in zip(first[3:], later, strict=True):
        assert all(np.array_equal(one.features[name].ids_n, other.features[name].ids_n) for name in one.features)
        assert np.array_equal(one.labels_b, other.labels_b)
    assert 0 < auc(first, features, model, lambda _, ids_n: np.zeros((len(ids_n), 32), np.float32)) < 1
    some = replace(first[0], labels_b=np.zeros_like(first[0].labels_b))
    with pytest.raises(ValueError, match=f"no AUC: 0 of the {some.num_samples} samples of 1 batches are positive"):
        auc([some], features, model, lambda _, ids_n: np.zeros((len(ids_n), 32), np.float32))


def test_batches_come_at_their_pace_and_what_is_lost_is_not_made_up_for() -> None:
    clock = Clock(100.0)
    assert clock.wait_s(5.0, 10) == 0
    assert clock.wait_s(5.0, 10) == pytest.approx(0.1)
    assert clock.wait_s(5.15, 10) == pytest.approx(0.05)
    assert clock.samples_per_s == pytest.approx(100)
    assert clock.wait_s(7.0, 10) == 0
    assert clock.wait_s(7.0, 10) == 0, "one follows at once"
    assert clock.wait_s(7.0, 10) == pytest.approx(0.1)
    assert clock.samples_per_s == pytest.approx(50 / 2.1)


def test_a_run_that_fell_behind_or_sent_old_rows_does_not_count() -> None:
    assert lacking({"paced_samples_per_s": 49_100.0, "oldest_s": [0.9, 1.0]}) == []
    assert lacking({"paced_samples_per_s": 48_900.0, "oldest_s": [0.9, 1.01, 1.2]}) == [
        "the pace was not kept: 48,900 samples/s",
        "rows of 2 cuts were older",
    ]
