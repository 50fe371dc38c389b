"""Identities and metadata in rows, against a plain dict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuda.backend import UpdateRule
from cuda.host import HostBackend
from pipeline.store import BadLoad, DramTier, Store, StoreOptions
from pipeline.store.loading import pack
from pipeline.store.meta import batch_meta, fault
from tests.store.jobs import batch_of, empty_outs, train_step
from tests.store.meta_walk import FEATURES, SPECS, MetaPlan, walk


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([None, 1, 3]), st.sampled_from([0.4, 1.0]))
def test_each_row_keeps_what_its_last_use_brought(seed: int, after: int | None, brings: float) -> None:
    """Whatever left L1 meanwhile, whatever snapshots are open: they have what was there at their step."""
    walk(MetaPlan(seed, after=after, brings=brings))


@pytest.mark.parametrize("seed", range(4))
def test_a_row_that_ended_begins_with_zeros_when_it_comes_back(seed: int) -> None:
    walk(MetaPlan(seed, brings=0.4, expires=True))


def test_what_batches_bring_changes_no_weight() -> None:
    plan = MetaPlan(7)
    with_meta, without = walk(plan), walk(replace(plan, brings=0.0))
    for name, weights in with_meta.items():
        assert weights.tobytes() == without[name].tobytes()


def test_a_row_whose_gradient_is_no_number_was_used_all_the_same() -> None:
    options = StoreOptions(l1_rows=8, bad_gradients="skip")
    store = Store(SPECS, (UpdateRule("sgd", (1.0,)),) * 3, FEATURES, HostBackend(1), DramTier(), options)
    store.open()
    batch = batch_of([[[5, 6]], [[]], [[]], [[]]], FEATURES)
    brought = [np.array([[1, 2], [3, 4]]), None, None, None]
    batch = replace(batch, meta=batch_meta(FEATURES, {"identity": brought}))
    before = store.fetch_rows("users", [5, 6]).weights_nd
    train_step(store, 1, batch, [np.full_like(out, np.nan) for out in empty_outs(batch)])
    rows = store.fetch_rows("users", [5, 6])
    assert rows.weights_nd.tobytes() == before.tobytes()
    assert rows.meta["identity"].tolist() == [[1, 2], [3, 4]]
    store.close()


@pytest.mark.parametrize(
    ("feature", "column", "values", "what"),
    [
        (0, "identity", np.zeros((3, 2), np.int32), "values for identity are int32 [3, 2]; int64 [3, 2] is needed"),
        (0, "identity", np.zeros((2, 2), np.int64), "values for identity are int64 [2, 2]; int64 [3, 2] is needed"),
        (1, "identity", np.zeros((3, 2), np.int64), "values for identity are int64 [3, 2]; int64 [3, 1] is needed"),
        (0, "metadata", np.zeros(3, np.uint8), "values for metadata are uint8 [3]; uint8 [3, 3] is needed"),
        (
            1,
            "metadata",
            np.zeros((3, 1), np.uint8),
            "values for metadata came (uint8 [3, 1]), and its table has no such",
        ),
        (0, "identity", np.zeros((3, 2), np.int64), None),
    ],
)
def test_values_of_the_wrong_shape_or_dtype_are_named(
    feature: int, column: str, values: np.ndarray, what: str | None
) -> None:
    found = fault(FEATURES, feature, column, values, 3)
    assert found is None if what is None else found is not None and found.startswith(what)


def test_a_load_gives_meta_columns_or_begins_them_at_zero() -> None:
    spec, weights = SPECS[0], np.ones((2, 4), np.float32)
    meta = {"identity": np.array([[1, 2], [3, 2**62]]), "metadata": np.full((2, 3), 255, np.uint8)}
    _, rows = pack(spec, [5, 6], weights, None, meta, 9)
    for name, values in meta.items():
        assert spec.layout.view(rows, name).tolist() == values.tolist()
    assert not spec.layout.view(pack(spec, [5, 6], weights, None, None, 9)[1], "identity").any()
    with pytest.raises(BadLoad, match="lacks 'metadata': its meta columns are identity, metadata"):
        pack(spec, [5, 6], weights, None, {"identity": meta["identity"]}, 9)
    with pytest.raises(BadLoad, match="has no meta column 'identity': its meta columns are none"):
        pack(SPECS[2], [5, 6], np.ones((2, 12), np.float32), None, {"identity": meta["identity"]}, 9)
