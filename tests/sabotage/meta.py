"""Small ways to lose or mix up identities and metadata. ``check`` has to catch each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np

from cuda.host import HostBackend
from cuda.plan import BatchIds, BatchMeta, Int64s, UniqueIds
from pipeline.modules.ahead import Ahead
from pipeline.rows.buckets import bucket_ids
from pipeline.store import Reservation
from pipeline.store import meta as store_meta
from pipeline.store import store as store_file
from pipeline.store.residency import Residency
from pipeline.store.slots import SlotMachine
from stages import rebatch
from stages.items import FeatureIds
from stages.negatives import drawn
from stages.negatives.along import words_of
from stages.sources import SyntheticSource, samples
from stages.sources.samples import Samples
from tests.modules.test_identities import test_what_was_announced_is_kept_as_its_forward_gives_it as check_modules
from tests.stages.driving import drive
from tests.stages.sources.test_identities import test_samples_come_back_from_plain_values_with_them as check_states
from tests.stages.test_negatives import test_identities_and_metadata_go_along_with_ids as check_negatives
from tests.store.meta_walk import MetaPlan, walk


def check() -> None:
    check_states()
    check_source()
    check_negatives("popularity")
    for seed in range(3):
        walk(MetaPlan(seed, brings=0.5))
        walk(MetaPlan(seed, after=2))
    check_modules()


def check_source() -> None:
    """Cut, shuffled and joined, each id keeps its own."""
    feature = {"ids": 1000, "bag": [0, 4], "buckets": 50, "identities": 1}
    options = {"samples": 200, "batch_size": 33, "shuffle": 70, "features": {"a": feature}}
    for batch in drive(lambda: SyntheticSource(SyntheticSource.Options.model_validate(options))).batches:
        bags = batch.features["a"]
        assert bags.identities_nk is not None
        assert np.array_equal(bucket_ids(bags.identities_nk[:, 0], 50), bags.ids_n)


@contextmanager
def keep_the_first_occurrence() -> Iterator[None]:
    find = HostBackend.last_values

    def first(self: HostBackend, batch: BatchIds, unique: UniqueIds, meta: BatchMeta) -> Any:
        starts, turned = unique.occurrence_start_u.tolist(), unique.occurrences_n.copy()
        for start, stop in pairwise(starts):
            turned[start:stop] = turned[start:stop][::-1]
        return find(self, batch, replace(unique, occurrences_n=turned), meta)

    with patch.object(HostBackend, "last_values", first):
        yield


@contextmanager
def keep_the_last_of_one_feature_alone() -> Iterator[None]:
    """What the features behind the first one that brings values bring is forgotten."""
    find = HostBackend.last_values

    def narrow(self: HostBackend, batch: BatchIds, unique: UniqueIds, meta: BatchMeta) -> Any:
        first_f = np.where(np.cumsum(meta.first_f >= 0) <= 1, meta.first_f, -1)
        return find(self, batch, unique, replace(meta, first_f=first_f))

    with patch.object(HostBackend, "last_values", narrow):
        yield


@contextmanager
def clear_rows_that_nothing_was_brought_for() -> Iterator[None]:
    find = HostBackend.last_values

    def all_of_them(self: HostBackend, batch: BatchIds, unique: UniqueIds, meta: BatchMeta) -> Any:
        rows_m, values_mb = find(self, batch, unique, meta)
        first, last = unique.table_start_t[meta.table : meta.table + 2].tolist()
        every = np.zeros((last - first, values_mb.shape[1]), np.uint8)
        every[rows_m - first] = values_mb
        return np.arange(first, last), every

    with patch.object(HostBackend, "last_values", all_of_them):
        yield


@contextmanager
def write_before_the_save() -> Iterator[None]:
    """Snapshots that need the old rows are told of them when the new identities are in."""
    mark = Residency.mark_written

    def early(self: Residency, reservation: Reservation) -> None:
        mark(self, reservation)
        store_meta.write_meta(self.backend, reservation)

    with patch.object(Residency, "mark_written", early):
        yield


@contextmanager
def write_with_the_next_step() -> Iterator[None]:
    late: list[Reservation] = []

    def postponed(backend: Any, reservation: Reservation) -> None:
        waiting, late[:] = list(late), [reservation]
        for one in waiting:
            store_meta.write_meta(backend, one)

    with patch.object(store_file, "write_meta", postponed):
        yield


@contextmanager
def forget_what_was_brought_for_rows_that_came_from_below() -> Iterator[None]:
    """Only rows that were in L1 get theirs."""
    write = store_meta.write_meta

    def without(backend: Any, reservation: Reservation) -> None:
        kept = []
        for one in reservation.meta:
            hit_m = ~np.isin(one.rows_m, reservation.misses_m)
            kept.append(one._replace(rows_m=one.rows_m[hit_m], values_mb=one.values_mb[hit_m]))
        write(backend, replace(reservation, meta=tuple(kept)))

    with patch.object(store_file, "write_meta", without):
        yield


@contextmanager
def call_rows_clean_that_were_written() -> Iterator[None]:
    """So what was written does not reach the tier."""
    unpin = SlotMachine.unpin

    with patch.object(SlotMachine, "unpin", lambda self, slots_u, _written: unpin(self, slots_u, False)):
        yield


@contextmanager
def take_identities_from_the_start_of_a_block() -> Iterator[None]:
    """A cut of samples keeps the identities of the samples before it."""
    cut = samples.cut_bags

    def shifted(bags: FeatureIds, start: int, stop: int) -> FeatureIds:
        found = cut(bags, start, stop)
        if bags.identities_nk is None:
            return found
        return replace(found, identities_nk=bags.identities_nk[: found.ids_n.shape[0]])

    with patch.object(samples, "cut_bags", shifted):
        yield


@contextmanager
def shuffle_ids_alone() -> Iterator[None]:
    take = samples.take_bags

    def alone(bags: FeatureIds, order_b: Int64s) -> FeatureIds:
        return replace(take(bags, order_b), identities_nk=bags.identities_nk)

    with patch.object(samples, "take_bags", alone):
        yield


@contextmanager
def leave_them_out_of_states() -> Iterator[None]:
    """Batches that wait in a checkpoint come back without."""
    unpack = rebatch.unpack

    def without(state: Any) -> Samples:
        found = unpack(state)
        bare = {name: replace(bags, identities_nk=None, metadata_nm=None) for name, bags in found.features.items()}
        return replace(found, features=bare)

    with patch("tests.stages.sources.test_identities.unpack", without):
        yield


@contextmanager
def give_negatives_the_identity_of_their_positive() -> Iterator[None]:
    replaced = drawn.replace_bags

    def own(
        bags: FeatureIds, order_r: Int64s, negative_r: Any, ids_m: Int64s, there_m: Any, _words_wm: Int64s
    ) -> FeatureIds:
        starts_r = np.minimum(bags.offsets_b[:-1][order_r[negative_r]], max(bags.ids_n.shape[0] - 1, 0))
        return replaced(bags, order_r, negative_r, ids_m, there_m, words_of(bags)[:, starts_r])

    with patch.object(drawn, "replace_bags", own):
        yield


@contextmanager
def keep_what_was_announced() -> Iterator[None]:
    """A forward that was announced keeps what its announcement had found: nothing."""
    claim = Ahead.claim

    def announced(self: Ahead, batch: BatchIds) -> Reservation:
        ahead = bool(self._queue)
        found = claim(self, batch)
        return replace(found, meta=()) if ahead else found

    with patch.object(Ahead, "claim", announced):
        yield


SABOTAGES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        keep_the_first_occurrence,
        keep_the_last_of_one_feature_alone,
        clear_rows_that_nothing_was_brought_for,
        write_before_the_save,
        write_with_the_next_step,
        forget_what_was_brought_for_rows_that_came_from_below,
        call_rows_clean_that_were_written,
        take_identities_from_the_start_of_a_block,
        shuffle_ids_alone,
        leave_them_out_of_states,
        give_negatives_the_identity_of_their_positive,
        keep_what_was_announced,
    )
}
