"""Each sabotage of hooks is caught, and without one the same checks pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.store import DramTier, HookFailed, Store
from tests.sabotage.caught import assert_caught
from tests.sabotage.hooks import SABOTAGES
from tests.store.hooked import POINTS, walk
from tests.store.jobs import batch_of, make_store, train_step, whole_grads


def small_store() -> Store:
    return make_store(DramTier(), l1_rows=48, policy="lru")


def check() -> None:
    for ahead in (0, 3):
        store = small_store()
        walk(store, ahead)
        store.close()
    check_what_raises_stops()


def check_what_raises_stops() -> None:
    def broken(_table: str, _ids: Any, _rows: Any) -> None:
        raise ZeroDivisionError

    for at in POINTS:
        store = small_store()
        store.add_hook(at, broken)
        with pytest.raises(HookFailed):
            train(store)
        store.close()


def train(store: Store) -> None:
    """So many rows that some leave."""
    for step in range(1, 9):
        batch = batch_of([[list(range(20 * step, 20 * step + 20))], [[]], [[]], [[]]])
        train_step(store, step, batch, whole_grads(np.random.default_rng(), batch))


def test_the_checks_pass_on_the_product() -> None:
    check()


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(name: str) -> None:
    assert_caught(SABOTAGES[name], check, HookFailed, pytest.fail.Exception, name=name)
