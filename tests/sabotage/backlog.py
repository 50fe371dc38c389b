"""Small ways to break the bounded backlog and the way a failing transport is met. Each is caught by the checks in ``test_backlog.py``
beside this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from pipeline.stream.changed import ChangedSet
from pipeline.stream.freezing import Freezer
from pipeline.stream.outlet import Outlet
from pipeline.stream.streamer import RowStreamer
from pipeline.stream.taken import NO_STEPS
from tests.sabotage.caught import Sabotage


def _forget_that_it_collapsed() -> AbstractContextManager[Any]:
    take = ChangedSet.take
    return patch.object(ChangedSet, "take", lambda self: replace(take(self), collapsed=False))


def _list_since_a_later_step() -> AbstractContextManager[Any]:
    freeze = Freezer.freeze

    def later(self: Freezer, step: int, since: int, **given: Any) -> Any:
        return freeze(self, step, since + self._changed.collapsed, **given)

    return patch.object(Freezer, "freeze", later)


def _list_where_rows_end() -> AbstractContextManager[Any]:
    return patch.object(Freezer, "cannot_list", lambda _self, _changed: False)


def _lose_what_a_failing_transport_did_not_take() -> AbstractContextManager[Any]:
    return patch.object(ChangedSet, "put_back", lambda _self, _changed: None)


def _go_on_in_a_storage_that_lost_its_data() -> AbstractContextManager[Any]:
    renew = Outlet.renew

    def renewed(self: Outlet) -> bool:
        renew(self)
        return False

    return patch.object(Outlet, "renew", renewed)


def _never_ask_for_the_epoch_again() -> AbstractContextManager[Any]:
    renew = Outlet.renew
    return patch.object(Outlet, "renew", lambda self: renew(self) if self._epoch is None else False)


def _tell_no_ends_of_steps_in_a_cut_that_stands_alone() -> AbstractContextManager[Any]:
    write = RowStreamer._write_everything
    return patch.object(
        RowStreamer, "_write_everything", lambda self, builder, frozen, _ended: write(self, builder, frozen, NO_STEPS)
    )


def _keep_ids_beyond_the_bound() -> AbstractContextManager[Any]:
    return patch.object(ChangedSet, "_keep_within", lambda _self, _most: None)


@contextmanager
def _count_ids_without_the_block_they_lie_in() -> Iterator[None]:
    def ids_alone(ids: Any, count: int | None = None) -> int:
        return 8 * (count or sum(map(len, ids.values())))

    with (
        patch("pipeline.stream.changed.block_bytes", ids_alone),
        patch("pipeline.stream.merging.block_bytes", ids_alone),
    ):
        yield


SABOTAGES: dict[str, Sabotage] = {
    "forget that the set collapsed": _forget_that_it_collapsed,
    "list since a later step": _list_since_a_later_step,
    "list where rows end": _list_where_rows_end,
    "lose what a failing transport did not take": _lose_what_a_failing_transport_did_not_take,
    "go on in a storage that lost its data": _go_on_in_a_storage_that_lost_its_data,
    "never ask for the epoch again": _never_ask_for_the_epoch_again,
    "tell no ends of steps in a cut that stands alone": _tell_no_ends_of_steps_in_a_cut_that_stands_alone,
    "keep ids beyond the bound": _keep_ids_beyond_the_bound,
    "count ids without the block they lie in": _count_ids_without_the_block_they_lie_in,
}
"""Name to a context manager that breaks it."""
