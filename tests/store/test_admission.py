"""Admission decides by the ids of earlier steps alone: exactly as a dict would, and beyond its bytes early but never late."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cuda.host.backend import HostBackend
from cuda.plan import BatchIds, FeatureSet, UniqueIds
from pipeline.store.admission import LEAST_BYTES, AdmissionRule
from pipeline.store.dynamic import DynamicTables

FEATURES = FeatureSet(("a", "b"), np.array([0, 1], np.int32), np.array([4, 4], np.int32), np.zeros(2, np.int32), 2)
NAMES = ("counted", "open")


def unique_of(ids_n: np.ndarray) -> UniqueIds:
    """Both features have these ids."""
    count = ids_n.shape[0]
    offsets_fb = np.array([[0, count], [count, 2 * count]], np.int64)
    starts = np.array([0, count, 2 * count], np.int64)
    return HostBackend(1).deduplicate(BatchIds(FEATURES, 1, np.concatenate([ids_n, ids_n]), starts, offsets_fb, None))


def admission(after: int, max_bytes: int = 1 << 20) -> DynamicTables:
    return DynamicTables(NAMES, (AdmissionRule(after, max_bytes), None), (None, None))


@pytest.mark.parametrize("after", [1, 2, 5])
@pytest.mark.parametrize("ahead", [0, 7])
def test_counts_are_those_of_a_dict_also_across_a_resume(after: int, ahead: int) -> None:
    """``ahead``: steps that were screened behind the state, and are screened again by who goes on from it."""
    rng, seen, screened = np.random.default_rng(after), Counter[int](), admission(after)
    steps = [rng.zipf(1.3, 60) % 97 - 5 for _ in range(40)]
    for step, ids_n in enumerate(steps, 1):
        if step == 20:
            state = screened.state()
            for later, more in enumerate(steps[step - 1 : step - 1 + ahead], step):
                screened.screen(later, unique_of(more))
            screened = admission(after)
            screened.restore(state)
        got = screened.screen(step, unique_of(ids_n))
        assert screened.screen(step, unique_of(ids_n)) is got, "asked again: decided and counted once"
        own = got.own.ids_u[: got.own.table_start_t[1]]
        assert set(own.tolist()) == {i for i in ids_n.tolist() if seen[i] >= after}
        assert got.own.ids_u.shape[0] - own.shape[0] == len(set(ids_n.tolist())), "the other table is open"
        for u, row in enumerate(got.own.ids_u.tolist()):
            places = got.own.occurrences_n[got.own.occurrence_start_u[u] : got.own.occurrence_start_u[u + 1]]
            assert np.array_equal(np.concatenate([ids_n, ids_n])[places], np.full(places.shape[0], row))
        seen.update(ids_n.tolist())
    figures = screened.figures()["admission"]["counted"]
    assert figures["counting"] == "exact"
    assert figures["admitted"] == sum(count >= after for count in seen.values())


def test_beyond_its_bytes_a_sketch_admits_early_but_never_late_and_goes_on_from_its_state() -> None:
    rng, seen = np.random.default_rng(0), Counter[int]()
    one, early = admission(3, LEAST_BYTES), [0, 0]
    exact_ids = LEAST_BYTES // 2 // 64
    for step in range(1, 60):
        ids_n = rng.integers(-(2**62), 2**62, 50) if step % 2 else rng.integers(0, 2000, 200)
        got = one.screen(step, unique_of(ids_n))
        own = set(got.own.ids_u[: got.own.table_start_t[1]].tolist())
        due = {i for i in ids_n.tolist() if seen[i] >= 3}
        assert due <= own
        early[0] += len(own - due)
        early[1] += len(set(ids_n.tolist()) - due)
        seen.update(ids_n.tolist())
        if step % 10 == 0:
            state = one.state()
            one = admission(3, LEAST_BYTES)
            one.restore(state)
    figures = one.figures()["admission"]["counted"]
    assert figures["exact_ids"] == exact_ids < len(seen)
    assert "sketch" in figures["counting"]
    assert sum(values.nbytes for values in one.state().values()) <= LEAST_BYTES
    assert 0 < early[0] < early[1] // 10, "3,400 ids in 512 cells a row: some come early, few of all"
