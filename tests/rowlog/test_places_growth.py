"""The place index grows a little at a time: in memory, and in what one call moves."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.rowlog.places import PlaceIndex
from pipeline.rowlog.shard_kernels import COUNT, LOW, SCALE, SHIFT

PUT = 8192
MOST_BYTES = 24
Int64s = npt.NDArray[np.int64]


def records(index: PlaceIndex) -> Int64s:
    """A copy of the shards' records, in the order of LOW."""
    return index.directory.shards_kf.copy()


def moved_ids(before_kf: Int64s, after_kf: Int64s) -> int:
    """How many ids the shards hold that grew or are new."""
    same_k = np.searchsorted(before_kf[:, LOW], after_kf[:, LOW], side="right") - 1
    kept_k = (before_kf[same_k][:, [LOW, SHIFT, SCALE]] == after_kf[:, [LOW, SHIFT, SCALE]]).all(axis=1)
    return int(after_kf[~kept_k, COUNT].sum())


def put_range(index: PlaceIndex, start: int, count: int = PUT) -> None:
    index.put(np.arange(start, start + count), np.arange(start, start + count))


def test_a_fill_takes_no_more_than_24_bytes_an_id_at_any_size() -> None:
    index, sizes = PlaceIndex(), []
    for start in range(0, 3_000_000, PUT):
        put_range(index, start)
        if index.count > 100_000:
            sizes.append(index.nbytes / index.count)
    assert len(sizes) > 300
    assert max(sizes) <= MOST_BYTES


def test_what_it_says_it_holds_is_what_the_system_gave_it() -> None:
    statm = Path("/proc/self/statm")
    if sys.platform != "linux" or not statm.exists():
        pytest.skip("resident memory is read from /proc")

    def resident() -> int:
        return int(statm.read_text().split()[1]) * 4096

    ids = np.arange(2_000_000) * 3
    index = PlaceIndex()
    before, held_before = resident(), index.nbytes
    for start in range(0, ids.shape[0], PUT):
        index.put(ids[start : start + PUT], ids[start : start + PUT])
    held = index.nbytes - held_before
    assert held > 30_000_000
    assert abs(resident() - before - held) < 0.1 * held


@pytest.mark.parametrize("reserved", [0, 400_000], ids=["growing from nothing", "growing past what was reserved"])
def test_a_put_moves_few_shards_of_many(reserved: int) -> None:
    """With shards and puts both 32 times smaller than usual, so that there are as many shards as for 13 M ids."""
    index = PlaceIndex(reserved, shard_entries=1024)
    put, start = PUT // 32, reserved
    put_range(index, 0, reserved)
    moved = []
    for start in range(reserved, reserved + 400_000, put):
        before_kf = records(index)
        put_range(index, start, put)
        moved.append(moved_ids(before_kf, records(index)))
    assert records(index).shape[0] > 500
    assert sum(moved) > 400_000, "the test saw shards grow"
    assert max(moved) < 100_000 // 4


def test_nothing_grows_while_there_is_room_that_was_asked_for() -> None:
    index = PlaceIndex(1_000_000)
    before_kf = records(index)
    for start in range(0, 1_000_000, PUT):
        put_range(index, start, min(PUT, 1_000_000 - start))
    assert moved_ids(before_kf, records(index)) == 0
    assert index.count == 1_000_000
    assert index.nbytes <= MOST_BYTES * index.count


def test_room_can_be_asked_for_at_any_time() -> None:
    index = PlaceIndex()
    put_range(index, 0, 50_000)
    index.reserve(300_000)
    before_kf = records(index)
    put_range(index, 50_000, 250_000)
    assert moved_ids(before_kf, records(index)) == 0
    assert (index.find(np.arange(300_000)) == np.arange(300_000)).all()


def test_removing_and_entering_by_turns_takes_no_more_memory() -> None:
    index = PlaceIndex()
    sizes = []
    for start in range(0, 3_000_000, 20_000):
        put_range(index, start, 20_000)
        index.remove(np.arange(start - 100_000, start - 80_000))
        sizes.append(index.nbytes)
    assert index.count == 100_000
    assert sizes[-1] <= 1.3 * sizes[10]
