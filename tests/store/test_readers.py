"""Reads of several tables at once: in order, all of them, and none under way when one has failed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.rows.version import pack_version
from pipeline.store import CacheTier, DramTier, SsdTier, TierRows
from pipeline.store.readers import Readers
from pipeline.store.tier import Int64s
from tests.store.jobs import SPECS, TABLE_NAMES, batch_of, make_store

DEADLINE_S = 60


@pytest.fixture
def readers() -> Iterator[Readers]:
    made = Readers(3)
    yield made
    made.close()
    made.close()


def test_reads_are_under_way_together_and_come_back_in_order(readers: Readers) -> None:
    together = threading.Barrier(3)

    def read(part: int) -> int:
        together.wait(DEADLINE_S)
        return part * part

    assert list(readers.map(read, range(6))) == [0, 1, 4, 9, 16, 25]


def test_an_error_is_raised_when_no_read_is_under_way_any_more(readers: Readers) -> None:
    begun, failed, ended = threading.Event(), threading.Event(), threading.Event()

    def read(part: int) -> int:
        if part == 0:
            assert begun.wait(DEADLINE_S)
            failed.set()
            raise OSError("no such disk")
        begun.set()
        assert failed.wait(DEADLINE_S)
        ended.set()
        return part

    with pytest.raises(OSError, match="no such disk"):
        list(readers.map(read, range(2)))
    assert ended.is_set()


def test_one_reader_is_whoever_calls() -> None:
    readers = Readers(1)
    assert set(readers.map(lambda _part: threading.get_ident(), range(4))) == {threading.get_ident()}
    readers.close()


class Together(DramTier):
    """Its gets return when those of all tables are under way; one fails on request."""

    gets_at_once = len(SPECS)
    get_rows = None  # type: ignore[assignment]  # asked for rows table by table

    def __init__(self) -> None:
        super().__init__()
        self.barrier, self.failing = threading.Barrier(len(SPECS)), ""

    def get(self, table: str, ids_n: Int64s) -> TierRows:
        self.barrier.wait(DEADLINE_S)
        if table == self.failing:
            raise OSError("no such disk")
        return super().get(table, ids_n)


def test_a_batch_asks_for_the_rows_of_its_tables_at_once_and_each_comes_to_its_slot() -> None:
    tier = Together()
    store = make_store(tier)
    for number, spec in enumerate(SPECS):
        rows_nb = np.full((5, spec.layout.row_bytes), number + 1, np.uint8)
        store.load_rows(spec.name, np.arange(5), rows_nb, np.full(5, pack_version(1, number)))
    batch = batch_of([[[0, 4]], [[1, 2]], [[3]], [[2, 0]]])
    reservation = store.try_reserve(1, batch, store.backend.deduplicate(batch))
    assert reservation is not None
    tier.failing = TABLE_NAMES[1]
    with pytest.raises(OSError, match="no such disk"):
        store.read_misses(reservation)
    assert not reservation.loaded
    tier.failing = ""
    store.read_misses(reservation)
    rows_ub, versions_u = store.backend.read_rows(reservation.plan.slots_u)
    tables_u = reservation.plan.unique.tables_u
    assert rows_ub[:, 0].tolist() == (tables_u + 1).tolist()
    assert versions_u.tolist() == [pack_version(1, table) for table in tables_u.tolist()]
    store.close()


def test_memory_over_a_disk_is_asked_as_the_disk_is() -> None:
    assert CacheTier(Together(), 1 << 20).gets_at_once == Together.gets_at_once
    assert CacheTier(DramTier(), 1 << 20).gets_at_once == 1
    assert SsdTier.gets_at_once > 1
