"""What each optimizer does to rows, against formulas written out in float64, which nobody made fast, and against torch's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cuda.host import HostBackend
from cuda.plan import SUM, SlotPlan
from pipeline.models.schedules import build_schedule
from pipeline.optim import (
    AdagradOptions,
    AdamOptions,
    LambOptions,
    LarsSgdOptions,
    OptimizerOptions,
    PartialRowwiseLambOptions,
    SgdOptions,
    layout_of,
    rule_of,
)
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.store.step_rules import StepRules
from tests.cuda import cases

Doubles = npt.NDArray[np.float64]
STEPS, ROWS = 20, 40
LIMITED: tuple[OptimizerOptions, ...] = (
    SgdOptions(lr=0.3, max_gradient=0.5),
    AdagradOptions(max_norm=1.0),
    AdamOptions(max_gradient=0.7, max_norm=1.1),
    LarsSgdOptions(lr=2.0, eta=0.02, max_norm=0.9),
)
State = dict[str, Any]
Change = Callable[[Any, State, Any, Any, int], Any]
"""(options, one row's state, weights, gradient, step) -> the weights after it."""


def sgd(o: Any, _s: State, w: Any, g: Any, _t: int) -> Any:
    return w - o.lr * g


def adagrad(o: Any, s: State, w: Any, g: Any, _t: int) -> Any:
    s["m"] = s.get("m", 0) + g**2
    return w - o.lr * g / (np.sqrt(s["m"]) + o.eps)


def rowwise_adagrad(o: Any, s: State, w: Any, g: Any, _t: int) -> Any:
    s["m"] = s.get("m", 0) + np.mean((g + (o.weight_decay * w if o.decay == "l2" else 0)) ** 2)
    rate = o.lr / (np.sqrt(s["m"]) + o.eps)
    shrink = {"none": 0, "l2": rate, "decoupled": o.lr}[o.decay] * o.weight_decay
    return (1 - shrink) * w - rate * g


def adam_direction(o: Any, s: State, w: Any, g: Any, t: int, squares: Any) -> Any:
    s["updates"] = s.get("updates", 0) + 1
    if getattr(o, "rowwise_bias_correction", False):
        t = s["updates"]
    s["m"] = o.beta1 * s.get("m", 0) + (1 - o.beta1) * g
    s["v"] = o.beta2 * s.get("v", 0) + (1 - o.beta2) * squares
    return s["m"] / (1 - o.beta1**t) / (np.sqrt(s["v"] / (1 - o.beta2**t)) + o.eps) + o.weight_decay * w


def adam(o: Any, s: State, w: Any, g: Any, t: int) -> Any:
    return w - o.lr * adam_direction(o, s, w, g, t, g**2)


def partial_rowwise_adam(o: Any, s: State, w: Any, g: Any, t: int) -> Any:
    return w - o.lr * adam_direction(o, s, w, g, t, np.mean(g**2))


def lamb(o: Any, s: State, w: Any, g: Any, t: int) -> Any:
    u = adam_direction(o, s, w, g, t, g**2)
    return w - o.lr * np.linalg.norm(w) / np.linalg.norm(u) * u


def partial_rowwise_lamb(o: Any, s: State, w: Any, g: Any, t: int) -> Any:
    u = adam_direction(o, s, w, g, t, np.mean(g**2))
    return w - o.lr * np.linalg.norm(w) / np.linalg.norm(u) * u


def lars_sgd(o: Any, s: State, w: Any, g: Any, _t: int) -> Any:
    norm = np.linalg.norm(w)
    rate = o.lr * o.eta * norm / (np.linalg.norm(g) + o.weight_decay * norm)
    s["m"] = o.momentum * s.get("m", 0) + rate * (g + o.weight_decay * w)
    return w - s["m"]


def change(o: Any, s: State, w: Any, g: Any, t: int) -> Any:
    """The formula between the limits of gradient and row."""
    w = FORMULAS[o.kind](o, s, w, np.clip(g, -o.max_gradient, o.max_gradient) if o.max_gradient else g, t)
    norm = np.linalg.norm(w)
    return w * o.max_norm / norm if 0 < o.max_norm < norm else w


FORMULAS: dict[str, Change] = {
    "sgd": sgd,
    "adagrad": adagrad,
    "rowwise_adagrad": rowwise_adagrad,
    "adam": adam,
    "partial_rowwise_adam": partial_rowwise_adam,
    "lamb": lamb,
    "partial_rowwise_lamb": partial_rowwise_lamb,
    "lars_sgd": lars_sgd,
}


class Rows:
    """Rows of one table in a backend, updated by the gradients of a step."""

    def __init__(self, options: OptimizerOptions, weights_nd: npt.NDArray[np.float32]) -> None:
        count, self.dim = weights_nd.shape
        self.backend, self.rule = HostBackend(2), rule_of(options)
        self.spec = TableSpec("t", layout_of(options, self.dim), Initializer(), 0)
        self.backend.open([self.spec], count)
        self.slots = np.arange(count, dtype=np.int32)
        self.backend.admit(self.slots, np.zeros(count, np.int32), np.arange(count, dtype=np.int64))
        rows = np.zeros((count, self.spec.layout.row_bytes // 4), np.float32)
        rows[:, : self.dim] = weights_nd
        self.backend.write_rows(self.slots, rows.view(np.uint8), np.zeros(count, np.int64))

    def step(self, ids: Sequence[int], gradients_nd: npt.NDArray[np.float32], step: int) -> None:
        made = cases.batch(np.random.default_rng(), [self.dim], [0], [SUM], len(ids), longest=1)
        made = cases.one_id_a_bag(made, ids)
        unique = self.backend.deduplicate(made)
        plan = SlotPlan(made, unique, self.backend.locate(unique.tables_u, unique.ids_u))
        self.backend.update(plan, cases.matrices([gradients_nd]), [self.rule], step)

    def weights(self) -> npt.NDArray[np.float32]:
        rows, _ = self.backend.read_rows(self.slots)
        return rows.view(np.float32)[:, : self.dim]


def train(options: OptimizerOptions, dim: int, factor: Callable[[int], float] | None = None) -> tuple[Doubles, Doubles]:
    """Weights after STEPS steps of random rows with random gradients, as the backend and as the formula have them."""
    random = np.random.default_rng()
    weights = (0.3 * random.standard_normal((ROWS, dim))).astype(np.float32)
    rows, expected = Rows(options, weights), weights.astype(np.float64)
    states: list[State] = [{} for _ in range(ROWS)]
    for step in range(1, STEPS + 1):
        ids = random.permutation(ROWS)[: ROWS * 3 // 4]
        gradients = random.standard_normal((len(ids), dim)).astype(np.float32)
        now = options
        if factor is not None:
            now = options.model_copy(update={"lr": options.lr * factor(step)})
            rows.rule = StepRules([rule_of(options)], [factor]).at(step)[0]
        rows.step(ids.tolist(), gradients, step)
        for number, gradient in zip(ids, gradients.astype(np.float64), strict=True):
            expected[number] = change(now, states[number], expected[number], gradient, step)
    return rows.weights().astype(np.float64), expected


@pytest.mark.parametrize("dim", [4, 20, 64])
@pytest.mark.parametrize("options", [*cases.OPTIMIZERS, *LIMITED], ids=lambda options: options.kind)
def test_twenty_steps_are_those_of_the_formula(options: OptimizerOptions, dim: int) -> None:
    found, expected = train(options, dim)
    assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("dim", [4, 64])
def test_a_rate_that_changes_is_that_of_the_step(dim: int) -> None:
    factor = build_schedule("cosine", {"steps": STEPS, "final": 0.1}, warmup_steps=5)
    found, expected = train(SgdOptions(lr=0.3), dim, factor)
    assert np.abs(found - expected).max() <= 1e-6
    assert len({factor(step) for step in range(1, STEPS + 1)}) > 10


def test_every_optimizer_has_a_formula_of_its_own_here() -> None:
    assert {options.kind for options in cases.OPTIMIZERS} == set(FORMULAS)


def test_adam_is_sparse_adam_of_torch_where_they_coincide() -> None:
    """torch corrects the root before it adds eps, so they do with an eps that adds nothing."""
    random, dim = np.random.default_rng(), 32
    weights = random.standard_normal((ROWS, dim)).astype(np.float32)
    rows = Rows(AdamOptions(lr=0.01, eps=1e-30), weights)
    theirs = torch.nn.Embedding(ROWS, dim, sparse=True, _weight=torch.from_numpy(weights.copy()))
    optimizer: Any = torch.optim.SparseAdam(theirs.parameters(), lr=0.01, eps=1e-30)
    for step in range(1, STEPS + 1):
        ids = random.permutation(ROWS)[: ROWS // 2]
        gradients = random.standard_normal((len(ids), dim)).astype(np.float32)
        rows.step(ids.tolist(), gradients, step)
        optimizer.zero_grad()
        theirs(torch.from_numpy(ids)).backward(torch.from_numpy(gradients))
        optimizer.step()
    assert np.abs(rows.weights() - theirs.weight.detach().numpy()).max() <= 1e-6


@pytest.mark.parametrize(
    "options", [LambOptions(), PartialRowwiseLambOptions(), LarsSgdOptions()], ids=lambda o: o.kind
)
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_where_a_length_is_zero_nothing_becomes_nan(options: OptimizerOptions, weight: float) -> None:
    """The reference divides zero by zero here; a row without a direction stays where it is."""
    weights = np.full((1, 8), weight, np.float32)
    rows = Rows(options, weights)
    for step in (1, 2):
        rows.step([0], np.zeros((1, 8), np.float32), step)
    np.testing.assert_array_equal(rows.weights(), weights)
