"""Columns that ride along: a replica holds them as it holds weights, in every view, and exports them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.replica import Replica, TableChanged, UnknownColumn
from pipeline.rows.narrow import widen
from tests.replica.trainer import DictTrainer, MemoryTransport, assert_equal, assert_shows, column_of

ALL = ("momentum", "slow", "raw")


def stream(trainer: DictTrainer, stage_bytes: int = 1 << 20) -> tuple[MemoryTransport, Replica]:
    transport = MemoryTransport()
    transport.begin(trainer.header())
    return transport, Replica(transport, stage_bytes=stage_bytes)  # type: ignore[arg-type]


@pytest.mark.parametrize("carries", [(), ("raw",), ("momentum", "raw"), ALL])
@pytest.mark.parametrize("codec", ["fp32", "fp16"])
@pytest.mark.parametrize("stage_bytes", [100, 1 << 20])
def test_what_rides_along_is_held_in_every_view(carries: tuple[str, ...], codec: str, stage_bytes: int) -> None:
    trainer = DictTrainer({"item": 4, "user": 3}, codec=codec)
    trainer.carries, trainer.share = carries, 0.5
    transport, replica = stream(trainer, stage_bytes)
    for shift in range(3):
        trainer.update({"item": list(range(shift, shift + 30)), "user": [1, 2, shift]})
        trainer.forget("item", [shift])
        transport.publish(trainer.cut())
        with replica.view() as before:
            position = before.position
            replica.apply_available()
            assert_shows(before, trainer, position, range(40))
        assert_equal(replica, trainer, range(40))
    transport.publish(trainer.snapshot())
    late = Replica(transport, stage_bytes=stage_bytes)  # type: ignore[arg-type]
    late.apply_available()
    assert_equal(late, trainer, range(40))
    assert replica.columns("item") == carries


def test_an_unknown_column_is_named_beside_those_that_ride_along() -> None:
    trainer = DictTrainer({"item": 4})
    trainer.carries = ("raw",)
    _, replica = stream(trainer)
    replica.apply_available()
    with (
        replica.view() as view,
        pytest.raises(UnknownColumn, match="no column 'momentum' of table 'item': it carries raw"),
    ):
        view.column("item", "momentum", [1])


def test_a_generation_that_carries_other_columns_is_refused() -> None:
    trainer = DictTrainer({"item": 4})
    transport, replica = stream(trainer)
    trainer.update({"item": [1]})
    transport.publish(trainer.cut())
    trainer.carries = ("raw",)
    transport.begin(trainer.next_generation())
    with pytest.raises(TableChanged, match=r"carries no other columns and is now .* carries raw"):
        replica.apply_available()


def test_an_export_has_what_rides_along_as_the_trainers_export_names_it(tmp_path: Path) -> None:
    trainer = DictTrainer({"item": 4})
    trainer.carries = ALL
    transport, replica = stream(trainer)
    trainer.update({"item": [5, -3]})
    transport.publish(trainer.cut())
    replica.apply_available()
    replica.export("item", tmp_path / "item.npz")
    columns = {column.name: column for column in trainer.specs["item"].layout.columns}
    versions = [trainer.model["item"][row_id][1] for row_id in (-3, 5)]
    with np.load(tmp_path / "item.npz") as found:
        assert found["ids"].tolist() == [-3, 5]
        raw, slow = (column_of(columns[name], [-3, 5], versions) for name in ("raw", "slow"))
        assert found["meta_raw"].tobytes() == raw.tobytes()
        assert found["meta_raw"].dtype == np.int64
        assert found["state_momentum"].shape == (2, 1)
        assert found["state_slow"].tobytes() == widen(slow.view(np.uint16), "bfloat16").tobytes()
