"""The dense optimizer: any class of torch.optim by name, its rate a function of the step, its state as plain arrays.

Rules.

1. The learning rate of step s is ``lr * schedule(s)``; nothing counts but the step given.
2. State is keyed by the names of the parameters, so that it survives a change of their order. Tensors become arrays,
   everything else must be what JSON can carry: no pickle anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pipeline.models.arrays import Array, to_array, to_tensor
from pipeline.models.errors import ModelError, StateMismatch, UnknownName
from pipeline.models.names import check_keywords
from pipeline.models.options import DenseOptimizerOptions
from pipeline.models.schedules import Schedule, build_schedule

NOT_USABLE = {
    "LBFGS": "it evaluates the model several times in a step",
    "SparseAdam": "dense weights have dense gradients",
}


class DenseOptimizer:
    """Steps the dense weights. A model without weights is allowed: then nothing happens."""

    def __init__(self, model: torch.nn.Module, options: DenseOptimizerOptions) -> None:
        self.options = options
        self._schedule: Schedule = build_schedule(
            options.schedule.use, options.schedule.options, options.schedule.warmup_steps
        )
        self._names = [name for name, _ in model.named_parameters()]
        self._parameters = [parameter for _, parameter in model.named_parameters()]
        self._torch = _make(options, self._parameters) if self._parameters else None

    def step(self, step: int) -> None:
        """Apply the gradients as step number ``step`` (from 1)."""
        if self._torch is None:
            return
        rate = self.rate(step)
        for group in self._torch.param_groups:
            group["lr"] = rate
        self._torch.step()

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.options.lr * self._schedule(step)

    def zero_grad(self) -> None:
        """Forget the gradients of the dense weights."""
        for parameter in self._parameters:
            parameter.grad = None

    def state_arrays(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """(arrays by ``parameter/state``, a mapping for JSON): copies, enough to go on bit for bit."""
        arrays: dict[str, Array] = {}
        plain: dict[str, Any] = {}
        for name, parameter in zip(self._names, self._parameters, strict=True):
            states = self._torch.state.get(parameter, {}) if self._torch is not None else {}
            for state, value in states.items():
                if isinstance(value, torch.Tensor):
                    arrays[f"{name}/{state}"] = to_array(value)
                    plain[f"{name}/{state}"] = {"dtype": str(value.dtype).removeprefix("torch.")}
                elif value is None or isinstance(value, bool | int | float | str):
                    plain[f"{name}/{state}"] = {"value": value}
                else:
                    raise ModelError(
                        f"optimizer {self.options.use} keeps {state!r} as {type(value).__name__}: it cannot be saved"
                    )
        return arrays, {"use": self.options.use, "parameters": self._names, "states": plain}

    def load_state_arrays(self, arrays: Mapping[str, Array], described: Mapping[str, Any]) -> None:
        """Take back what ``state_arrays`` gave.

        Raises StateMismatch for another optimizer, model, or missing arrays.
        """
        if described["use"] != self.options.use or sorted(described["parameters"]) != sorted(self._names):
            raise StateMismatch(
                f"saved is the state of {described['use']} for {sorted(described['parameters'])}; "
                f"this is {self.options.use} for {sorted(self._names)}"
            )
        by_name: dict[str, dict[str, Any]] = {}
        for key, kept in described["states"].items():
            name, _, state = key.rpartition("/")
            by_name.setdefault(name, {})[state] = _value(key, kept, arrays)
        if self._torch is not None:
            for name, parameter in zip(self._names, self._parameters, strict=True):
                self._torch.state[parameter] = by_name.get(name, {})


def build_optimizer(model: torch.nn.Module, options: DenseOptimizerOptions) -> DenseOptimizer:
    """The optimizer a config names. Raises ModelError for unknown names and options."""
    return DenseOptimizer(model, options)


def optimizer_names() -> list[str]:
    """Names that ``use`` can have."""
    found = {n: c for n, c in vars(torch.optim).items() if isinstance(c, type) and issubclass(c, torch.optim.Optimizer)}
    return sorted(name for name in found if name != "Optimizer" and name not in NOT_USABLE)


def _make(options: DenseOptimizerOptions, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if options.use in NOT_USABLE:
        raise ModelError(f"dense_optimizer.use {options.use!r} cannot be used: {NOT_USABLE[options.use]}")
    if options.use not in optimizer_names():
        raise UnknownName("dense_optimizer.use", options.use, optimizer_names())
    make = getattr(torch.optim, options.use)
    check_keywords(f"dense_optimizer {options.use}", make, options.options, ("params", "lr"))
    keywords = {key: tuple(value) if isinstance(value, list) else value for key, value in options.options.items()}
    try:
        optimizer: torch.optim.Optimizer = make(parameters, lr=options.lr, **keywords)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"dense_optimizer {options.use}: {error}") from error
    return optimizer


def _value(key: str, kept: Mapping[str, Any], arrays: Mapping[str, Array]) -> Any:
    if "dtype" not in kept:
        return kept["value"]
    if key not in arrays:
        raise StateMismatch(f"the saved state lacks the array {key!r}")
    return to_tensor(arrays[key], getattr(torch, kept["dtype"]))
