"""A row begins the same everywhere and for ever, and its weights are spread as the initializer says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rows.errors import BadInitializer
from pipeline.rows.initial import initial_rows, initial_weights
from pipeline.rows.spec import Initializer
from tests.rows import reference

UNIFORM, NORMAL = Initializer("uniform", -0.01, 0.01), Initializer("normal", mean=0.5, std=0.1)
ZEROS = Initializer("zeros")
EDGES = [0, 1, -1, 2**63 - 1, -(2**63), 123_456_789_012]
int64s = st.integers(-(2**63), 2**63 - 1)
finite = st.floats(-1e6, 1e6, width=32)


@pytest.mark.parametrize(
    ("initializer", "golden"),
    [
        (
            UNIFORM,
            [
                [0x3BBDFA58, 0xBB27FEF0, 0xBBC43F85],
                [0xBBA98E1C, 0x3C034288, 0x3BFCDF18],
                [0xBBE6EA0F, 0x3BB6360A, 0x3C1DCA28],
            ],
        ),
        (
            NORMAL,
            [
                [0x3EC8C333, 0x3EED379A, 0x3EBB3966],
                [0x3F21C780, 0x3F024300, 0x3F0AAA1A],
                [0x3F283680, 0x3F1C8E66, 0x3ED8C200],
            ],
        ),
    ],
)
def test_golden_bits_never_change(initializer: Initializer, golden: list[list[int]]) -> None:
    """Table "users", seed 7, ids 0, -1 and the least int64, first three columns. A change here is a new table for
    every user."""
    spec = reference.spec_of(3, initializer)
    assert reference.bits(initial_weights(spec, np.array([0, -1, -(2**63)]))) == golden


@given(
    initializer=st.one_of(
        st.builds(Initializer, st.just("uniform"), finite, finite),
        st.builds(Initializer, st.just("normal"), mean=finite, std=finite),
        st.just(ZEROS),
    ),
    name=st.from_regex(r"\A[A-Za-z0-9_.-]{1,40}\Z"),
    seed=st.integers(-(2**63), 2**64),
    ids=st.lists(st.one_of(int64s, st.sampled_from(EDGES)), max_size=4),
    dim=st.integers(1, 9),
)
def test_weights_are_the_documented_formula(
    initializer: Initializer, name: str, seed: int, ids: list[int], dim: int
) -> None:
    spec = reference.spec_of(dim, initializer, name=name, seed=seed)
    expected = [[reference.initial_weight(spec, row_id, d) for d in range(dim)] for row_id in ids]
    found = initial_weights(spec, np.array(ids, dtype=np.int64))
    assert found.shape == (len(ids), dim)
    assert reference.bits(found) == reference.bits(np.array(expected, dtype=np.float32).reshape(-1, dim))


@pytest.mark.parametrize("initializer", [UNIFORM, NORMAL])
def test_order_batching_and_dim_do_not_matter(initializer: Initializer) -> None:
    rng = np.random.default_rng()
    ids = np.concatenate([rng.integers(-(2**63), 2**63 - 1, 5000), EDGES])
    whole = initial_weights(reference.spec_of(20, initializer), ids)
    order = rng.permutation(ids.shape[0])
    shuffled = initial_weights(reference.spec_of(20, initializer), ids[order])
    assert reference.bits(shuffled) == reference.bits(whole[order])
    pieces = [initial_weights(reference.spec_of(20, initializer), piece) for piece in np.array_split(ids, 7)]
    assert reference.bits(np.concatenate(pieces)) == reference.bits(whole)
    assert reference.bits(initial_weights(reference.spec_of(5, initializer), ids)) == reference.bits(whole[:, :5])


def test_seed_name_id_and_column_all_count() -> None:
    ids = np.arange(1000)
    base = initial_weights(reference.spec_of(8, UNIFORM), ids)
    for spec in (reference.spec_of(8, UNIFORM, seed=8), reference.spec_of(8, UNIFORM, name="user")):
        other = initial_weights(spec, ids)
        assert (other == base).mean() < 0.001
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 0.05
    assert np.unique(base, axis=0).shape[0] == 1000
    assert abs(np.corrcoef(base.T) - np.eye(8)).max() < 0.2, "columns are independent"
    assert abs(np.corrcoef(base[:-1].ravel(), base[1:].ravel())[0, 1]) < 0.05, "neighbours are independent"


def kolmogorov_smirnov(values: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> float:
    """The largest distance between the distribution of ``values`` and ``expected``, the true one at the sorted values,
    times sqrt(n): above 2.2 once in ten thousand.
    """
    steps = np.arange(1, values.size + 1) / values.size
    return float(np.abs(steps - expected).max() * np.sqrt(values.size))


def test_uniform_weights_are_uniform() -> None:
    values = np.sort(initial_weights(reference.spec_of(64, UNIFORM), np.arange(5000)).ravel())
    assert values[0] >= np.float32(-0.01)
    assert values[-1] <= np.float32(0.01)
    assert kolmogorov_smirnov(values, (values.astype(np.float64) + 0.01) / 0.02) < 2.2


def test_normal_weights_have_their_mean_their_deviation_and_tails() -> None:
    values = (initial_weights(reference.spec_of(64, NORMAL), np.arange(5000)).ravel().astype(np.float64) - 0.5) / 0.1
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    for bound, share in ((1, 0.319), (2, 0.0454), (3, 0.0022)):
        assert (np.abs(values) > bound).mean() == pytest.approx(share, rel=0.15)
    assert np.abs(values).max() < 6


def test_rows_hold_the_weights_and_zeros_elsewhere() -> None:
    spec = reference.spec_of(5, NORMAL)
    ids = np.array(EDGES)
    rows = initial_rows(spec, ids)
    assert rows.shape == (len(EDGES), 32)
    assert reference.bits(spec.layout.view(rows, "weight")) == reference.bits(initial_weights(spec, ids))
    assert not rows[:, 20:].any(), "states and padding begin at zero"


def test_no_ids_give_no_rows() -> None:
    assert initial_weights(reference.spec_of(5, UNIFORM), []).shape == (0, 5)
    assert initial_rows(reference.spec_of(5, UNIFORM), np.empty(0, np.int64)).shape == (0, 32)


@pytest.mark.parametrize(
    "initializer",
    [
        Initializer("uniform", float("nan"), 1),
        Initializer("uniform", -3e38, 3e38),
        Initializer("normal", std=1e39),
        Initializer("normal", mean=float("inf")),
    ],
)
def test_numbers_that_float32_cannot_hold_are_refused(initializer: Initializer) -> None:
    with pytest.raises(BadInitializer, match=f"initializer '{initializer.kind}' with .*finite in float32"):
        initial_weights(reference.spec_of(2, initializer), [1])


def test_ids_that_are_not_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="float64"):
        initial_weights(reference.spec_of(2, UNIFORM), [1.5])
    with pytest.raises(ValueError, match=r"one-dimensional; got shape \(1, 1\)"):
        initial_weights(reference.spec_of(2, UNIFORM), [[1]])
