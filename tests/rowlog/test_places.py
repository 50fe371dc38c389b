"""The place index says what a dict says, whatever is put in, moved and taken out, however its shards split."""

from __future__ import annotations

import mmap
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.rowlog import places as places_module
from pipeline.rowlog import places_recovery
from pipeline.rowlog.errors import BadPlace, IndexMemory
from pipeline.rowlog.places import PlaceIndex
from pipeline.rowlog.shard_kernels import END, id_of, key_of

Int64s = np.ndarray[tuple[int], np.dtype[np.int64]]
SHARD_ENTRIES = 128
EDGES = [0, 1, -1, 2**63 - 1, -(2**63), 2**32, -(2**32), int(id_of(0)), int(id_of(-1)), int(id_of(2**63 - 1))]


def crafted(start: int, count: int, bits: int = 0) -> list[int]:
    """Ids whose keys follow each other ``2**bits`` apart: all homes of a shard are one."""
    keys = [(start + (n << bits) + 2**63) % 2**64 - 2**63 for n in range(count)]
    return [int(id_of(key)) for key in keys]


starts = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, -1, 2**63 - 1, -(2**63), 2**40]))
id_lists = st.one_of(
    st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-20, 40), st.sampled_from(EDGES)), max_size=40),
    st.builds(lambda start, count: list(range(start, start + count)), st.integers(-500, 500), st.integers(0, 300)),
    st.builds(
        lambda start, count: [n << 32 for n in range(start, start + count)], st.integers(-99, 99), st.integers(0, 99)
    ),
    st.builds(crafted, starts, st.integers(0, 200), st.sampled_from([0, 0, 1, 20, 52])),
)
places = st.one_of(st.just(0), st.just(2**63 - 1 - 400), st.integers(0, 2**62))


class PlacesMachine(RuleBasedStateMachine):
    """``places`` is the model."""

    @initialize(expected=st.sampled_from([0, 1, 100, 1000]))
    def start(self, expected: int) -> None:
        self.index = PlaceIndex(expected, shard_entries=SHARD_ENTRIES)
        self.places: dict[int, int] = {}

    @rule(ids=id_lists, first=places)
    def put(self, ids: list[int], first: int) -> None:
        ids = list(dict.fromkeys(ids))
        new = range(first, first + len(ids))
        assert self.index.put(ids, new).tolist() == [self.places.get(row_id, -1) for row_id in ids]
        self.places.update(zip(ids, new, strict=True))

    @rule(ids=id_lists, wrong=st.integers(0, 3))
    def move(self, ids: list[int], wrong: int) -> None:
        ids = list(dict.fromkeys(ids))
        held = [self.places.get(row_id, 7) for row_id in ids]
        told = [place + 1 if wrong and n % (wrong + 1) == 0 else place for n, place in enumerate(held)]
        moved = self.index.move(ids, range(len(ids)), told)
        assert moved.tolist() == [self.places.get(row_id) == place for row_id, place in zip(ids, told, strict=True)]
        self.places.update((ids[n], int(n)) for n in np.flatnonzero(moved))

    @rule(ids=id_lists)
    def remove(self, ids: list[int]) -> None:
        assert self.index.remove(ids).tolist() == [self.places.pop(row_id, -1) for row_id in ids]

    @rule(ids=id_lists)
    def find(self, ids: list[int]) -> None:
        assert self.index.find(ids).tolist() == [self.places.get(row_id, -1) for row_id in ids]

    @rule(count=st.integers(0, 2000))
    def reserve(self, count: int) -> None:
        self.index.reserve(count)

    @rule(share=st.sampled_from([1, 2]))
    def remove_some(self, share: int) -> None:
        self.remove(list(self.places)[::share])

    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        pieces = list(self.index.items())
        found = [row_id for ids_n, _ in pieces for row_id in ids_n.tolist()]
        assert len(found) == len(set(found)) == self.index.count == len(self.places)
        assert dict(zip(found, (p for _, places_n in pieces for p in places_n.tolist()), strict=True)) == self.places
        assert self.index.ids().tolist() == found
        assert self.index.find(found).tolist() == [self.places[row_id] for row_id in found]

    @invariant()
    def searches_end_inside_a_shards_memory(self) -> None:
        assert self.index.directory.shards_kf[:, END].max() < SHARD_ENTRIES


TestPlacesAgainstADict = PlacesMachine.TestCase
TestPlacesAgainstADict.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_keys_are_ids_told_another_way() -> None:
    ids = np.concatenate([np.random.default_rng().integers(-(2**63), 2**63 - 1, 1000), EDGES])
    assert [int(id_of(key_of(row_id))) for row_id in ids] == ids.tolist()
    assert [int(key_of(id_of(key))) for key in ids] == ids.tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda n: n,
        lambda n: n << 32,
        lambda n: np.iinfo(np.int64).min + n,
        lambda n: np.array([id_of(key) for key in n + (1 << 40)]),
    ],
    ids=["consecutive", "multiples of 2**32", "the lowest", "of one hash prefix"],
)
def test_many_ids_keep_their_places_while_shards_split(make: Callable[[Int64s], Int64s]) -> None:
    ids, absent = np.split(make(np.arange(600_000, dtype=np.int64)), 2)
    places_n = np.random.default_rng().permutation(ids.shape[0]).astype(np.int64)
    index = PlaceIndex()
    for start in range(0, ids.shape[0], 8192):
        assert (index.put(ids[start : start + 8192], places_n[start : start + 8192]) == -1).all()
    assert index.directory.shards_kf.shape[0] > 3
    order = np.random.default_rng().permutation(ids.shape[0])
    assert (index.find(ids[order]) == places_n[order]).all()
    assert (index.find(absent) == -1).all()
    assert (index.put(ids[order], places_n) == places_n[order]).all()
    assert index.nbytes < 45 * ids.shape[0]


def test_a_put_of_very_many_ids_answers_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "GROUPED_FROM", 1000)
    monkeypatch.setattr(places_module, "GROUP", 3000)
    ids = np.random.default_rng().permutation(np.arange(-50_000, 50_000))
    index = PlaceIndex(50_000)
    assert (index.put(ids, ids + 50_000) == -1).all()
    assert (index.put(ids[::-1], range(100_000)) == ids[::-1] + 50_000).all()
    assert (index.find(ids[::-1]) == np.arange(100_000)).all()


def test_an_iteration_goes_on_while_the_index_changes() -> None:
    index = PlaceIndex(shard_entries=SHARD_ENTRIES)
    index.put(range(1000), range(1000))
    seen: list[int] = []
    for step, (ids_n, _) in enumerate(index.items()):
        assert ids_n.shape[0] < SHARD_ENTRIES
        seen += ids_n.tolist()
        index.put(range(1000 + 100 * step, 1100 + 100 * step), range(100))
    assert len(seen) == len(set(seen))
    assert set(range(1000)) <= set(seen)


def test_duplicates_are_taken_one_after_the_other() -> None:
    index = PlaceIndex()
    assert index.put([5, -1], [50, 0]).tolist() == [-1, -1]
    assert index.find([5, 5, 6]).tolist() == [50, 50, -1]
    assert index.remove([5, 5, -1]).tolist() == [50, -1, 0]


def test_what_no_row_can_have_is_refused() -> None:
    index = PlaceIndex()
    with pytest.raises(BadPlace, match="place -3 at position 1"):
        index.put([1, 2], [0, -3])
    with pytest.raises(ValueError, match="got 1 for 2 ids"):
        index.put([1, 2], [0])
    with pytest.raises(TypeError, match="float64"):
        index.find([1.0])
    assert index.count == 0


def test_without_memory_the_index_says_so_and_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    index = PlaceIndex(shard_entries=SHARD_ENTRIES)
    index.put([7], [70])

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", refuse)
        with pytest.raises(IndexMemory, match="no memory for another"):
            index.put(range(100, 100_000), range(100, 100_000))
    assert 1 < index.count < 100_000
    assert index.find([7]).tolist() == [70]
    index.put(range(100, 100_000), range(100, 100_000))
    assert (index.find(range(100, 100_000)) == np.arange(100, 100_000)).all()


def test_a_crowded_shard_that_was_emptied_takes_ids_again() -> None:
    """All ids crowd at the end of a shard's memory; then few are left, and the crowd comes again."""
    index = PlaceIndex(shard_entries=SHARD_ENTRIES)
    for _ in range(20):
        for start in (2**63 - 150, -(2**63), 0):
            ids = crafted(start, 150)
            assert (index.put(ids, range(150)) == -1).all()
            assert index.find(ids).tolist() == list(range(150))
            assert (index.remove(ids[1:] if start else ids) >= 0).all()
        index.remove(index.ids())
    assert index.count == 0
    assert index.directory.shards_kf.shape[0] < 200


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_recovery_keeps_the_newest_of_each_id_whatever_the_order(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Small shards, which are split all the time; records in segments, in random order of versions."""
    monkeypatch.setattr(places_recovery, "FEW", 1)
    rng = np.random.default_rng()
    counts = rng.integers(1, 3000, 9)
    bases_s, total = np.concatenate([[0], np.cumsum(counts)[:-1]]), int(counts.sum())
    versions_r = rng.integers(1, 50, total) | np.where(rng.random(total) < 0.1, np.int64(-(1 << 63)), 0)
    ids_r = rng.integers(-900, 900, total)
    index, older = PlaceIndex(shard_entries=SHARD_ENTRIES), []
    index.put(np.arange(5000, 9000), np.zeros(4000, dtype=np.int64))  # of shards there are some
    index.remove(np.arange(5000, 9000))
    with places_recovery.Recovery(index, threads, versions_r, bases_s) as recovery:
        for number, count in enumerate(counts.tolist()):
            part = slice(bases_s[number], bases_s[number] + count)
            older.append(recovery.enter(ids_r[part], np.arange(count) | number << 32))
    expected: dict[int, tuple[int, bool]] = {}
    for row_id, version in zip(ids_r.tolist(), versions_r.tolist(), strict=True):
        expected[row_id] = max(expected.get(row_id, (0, False)), (version & ((1 << 63) - 1), version < 0))
    ids_n = np.array(sorted(expected))
    places_n = index.find(ids_n)
    found_n = versions_r[bases_s[places_n >> 32] + (places_n & 0xFFFFFFFF)]
    assert [(int(version) & ((1 << 63) - 1), bool(version < 0)) for version in found_n] == [
        expected[row_id] for row_id in ids_n.tolist()
    ]
    assert index.count == len(expected)
    left = np.concatenate(older)
    left = left[left >= 0]
    assert len(np.unique(left)) == len(left) == total - len(expected), "each older record is told once"
