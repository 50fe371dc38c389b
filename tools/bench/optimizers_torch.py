"""Plain torch's side of the optimizers' benchmark, in a process of its own: `nn.EmbeddingBag(sparse=True)` and an optimizer.

torch.optim has SGD, Adagrad and SparseAdam for sparse gradients; the others are written here in the same operations: the gradient is
coalesced, then rows are taken, changed and put back. All tables are one, row id = table * ROWS + id: measured, that is faster than 26
modules, whose every small operation costs as much as a large one.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tools.bench.lookup_work import BATCH, DIM, EPS, LR, ROWS, TABLES, checked_ids, make_work, serve

BETA1, BETA2, ETA, MOMENTUM = 0.9, 0.999, 0.001, 0.9
State = dict[str, torch.Tensor]
Rule = Callable[[torch.Tensor, State, torch.Tensor, torch.Tensor, int], None]
"""(weights, states, rows, their gradients, step)"""


def rowwise_adagrad(weights: torch.Tensor, states: State, rows: torch.Tensor, g: torch.Tensor, _step: int) -> None:
    m = states["one"][rows] + g.square().mean(1)
    states["one"].index_copy_(0, rows, m)
    weights.index_add_(0, rows, g * (LR / (m.sqrt() + EPS))[:, None], alpha=-1)


def partial_rowwise_adam(weights: torch.Tensor, states: State, rows: torch.Tensor, g: torch.Tensor, step: int) -> None:
    weights.index_add_(0, rows, _direction(states, rows, g, step, partial=True), alpha=-LR)


def lamb(weights: torch.Tensor, states: State, rows: torch.Tensor, g: torch.Tensor, step: int) -> None:
    _lamb(weights, rows, _direction(states, rows, g, step, partial=False))


def partial_rowwise_lamb(weights: torch.Tensor, states: State, rows: torch.Tensor, g: torch.Tensor, step: int) -> None:
    _lamb(weights, rows, _direction(states, rows, g, step, partial=True))


def lars_sgd(weights: torch.Tensor, states: State, rows: torch.Tensor, g: torch.Tensor, _step: int) -> None:
    rate = LR * ETA * weights[rows].norm(dim=1) / g.norm(dim=1)
    m = states["first"][rows].mul_(MOMENTUM).addcmul_(rate[:, None], g)
    states["first"].index_copy_(0, rows, m)
    weights.index_add_(0, rows, m, alpha=-1)


def _direction(states: State, rows: torch.Tensor, g: torch.Tensor, step: int, *, partial: bool) -> torch.Tensor:
    name, squares = ("one", g.square().mean(1)) if partial else ("second", g.square())
    m = states["first"][rows].mul_(BETA1).add_(g, alpha=1 - BETA1)
    v = states[name][rows].mul_(BETA2).add_(squares, alpha=1 - BETA2)
    states["first"].index_copy_(0, rows, m)
    states[name].index_copy_(0, rows, v)
    below = (v / (1 - BETA2**step)).sqrt_().add_(EPS)
    return m / (1 - BETA1**step) / (below[:, None] if partial else below)


def _lamb(weights: torch.Tensor, rows: torch.Tensor, u: torch.Tensor) -> None:
    trust = weights[rows].norm(dim=1) / u.norm(dim=1)
    weights.index_add_(0, rows, u * trust[:, None], alpha=-LR)


RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "rowwise_adagrad": (rowwise_adagrad, ("one",)),
    "partial_rowwise_adam": (partial_rowwise_adam, ("first", "one")),
    "lamb": (lamb, ("first", "second")),
    "partial_rowwise_lamb": (partial_rowwise_lamb, ("first", "one")),
    "lars_sgd": (lars_sgd, ("first",)),
}
"""And the states each keeps: ``one`` number a row, a ``first`` and a ``second`` one a weight."""


class Torch:
    """Forward, backward and the optimizer's step."""

    def __init__(self, distribution: str, optimizer: str, steps: int, threads: int, start: float, first: int) -> None:
        """``start``: what weights begin as; ``first``: the number of the first step, for what is corrected for it."""
        torch.set_num_threads(threads)
        warnings.simplefilter("ignore")
        self._bag = torch.nn.EmbeddingBag(TABLES * ROWS, DIM, mode="sum", sparse=True)
        torch.nn.init.constant_(self._bag.weight, start)
        self._step, self._first = 0, first
        self._update = self._updater(optimizer)
        self._work = make_work(distribution, steps)
        self._offsets = torch.arange(TABLES * BATCH)
        self._first_of_table = (torch.arange(TABLES) * ROWS)[:, None]
        self._gradient = torch.from_numpy(self._work.gradient_bd)
        self.knobs = {"torch": torch.__version__}

    def run(self, steps: int) -> None:
        for _ in range(steps):
            ids = torch.from_numpy(self._work.steps_sn[self._step % len(self._work.steps_sn)])
            places = (ids.view(TABLES, BATCH) + self._first_of_table).T.reshape(-1)
            out = self._bag(places, self._offsets).view(BATCH, TABLES * DIM)
            self._bag.weight.grad = None
            out.backward(self._gradient)
            self._update()
            self._step += 1

    def rows(self) -> np.ndarray[Any, Any]:
        return self._bag.weight.detach()[torch.from_numpy(checked_ids(self._work))].numpy()

    def _updater(self, optimizer: str) -> Callable[[], Any]:
        weight: Any = self._bag.weight
        if optimizer == "sgd":
            return torch.optim.SGD([weight], lr=LR).step
        if optimizer == "adagrad":
            return torch.optim.Adagrad([weight], lr=LR, eps=EPS).step
        if optimizer == "adam":
            adam: Any = torch.optim.SparseAdam([weight], lr=LR, eps=EPS)
            moments = {name: torch.zeros_like(weight, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
            adam.state[weight] = {"step": self._first - 1, **moments}
            return adam.step  # type: ignore[no-any-return]
        rule, names = RULES[optimizer]
        shapes = {"one": (TABLES * ROWS,), "first": (TABLES * ROWS, DIM), "second": (TABLES * ROWS, DIM)}
        states = {name: torch.zeros(shapes[name]) for name in names}

        def update() -> None:
            gradient = weight.grad.coalesce()
            with torch.no_grad():
                rule(weight.data, states, gradient.indices()[0], gradient.values(), self._first + self._step)

        return update


if __name__ == "__main__":
    serve(Torch(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6])))
