"""Any optimizer of torch.optim by name; its state leaves and comes back as plain arrays, exactly."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.models.digest import dense_digest
from pipeline.models.errors import ModelError, StateMismatch
from pipeline.models.optimizer import build_optimizer, optimizer_names
from pipeline.models.options import DenseOptimizerOptions, ScheduleOptions


def small_model(dtype: torch.dtype = torch.float32) -> torch.nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(4, 2, bias=False)).to(dtype)


def fill_gradients(model: torch.nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def train(model: torch.nn.Module, optimizer: Any, steps: range) -> None:
    for step in steps:
        fill_gradients(model, step)
        optimizer.step(step)


@pytest.mark.parametrize("use", optimizer_names())
def test_a_restored_optimizer_goes_on_with_the_same_bits(use: str) -> None:
    options = DenseOptimizerOptions(use=use, lr=0.05)
    through, stopped = small_model(), small_model()
    optimizer = build_optimizer(through, options)
    train(through, optimizer, range(1, 7))
    first = build_optimizer(stopped, options)
    train(stopped, first, range(1, 4))
    arrays, described = first.state_arrays()
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in arrays.values())
    described = json.loads(json.dumps(described))
    resumed = build_optimizer(stopped, options)
    resumed.load_state_arrays(arrays, described)
    train(stopped, resumed, range(4, 7))
    assert dense_digest(stopped) == dense_digest(through)


def test_a_state_in_bfloat16_keeps_its_bits() -> None:
    options = DenseOptimizerOptions(use="Adam")
    model = small_model(torch.bfloat16)
    optimizer = build_optimizer(model, options)
    train(model, optimizer, range(1, 4))
    arrays, described = optimizer.state_arrays()
    other = build_optimizer(model, options)
    other.load_state_arrays(arrays, described)
    again, same = other.state_arrays()
    assert same == described
    assert sorted(again) == sorted(arrays)
    for name, array in arrays.items():
        assert np.array_equal(again[name], array)


def test_a_saved_state_is_a_copy() -> None:
    model = small_model()
    optimizer = build_optimizer(model, DenseOptimizerOptions(use="Adagrad"))
    train(model, optimizer, range(1, 2))
    arrays, _ = optimizer.state_arrays()
    before = {name: array.copy() for name, array in arrays.items()}
    train(model, optimizer, range(2, 5))
    assert all(np.array_equal(arrays[name], before[name]) for name in arrays)


@pytest.mark.parametrize("use", ["SGD", "Adagrad", "Adam"])
def test_it_steps_as_torch_does_at_the_rate_of_the_schedule(use: str) -> None:
    schedule = ScheduleOptions(use="linear", options={"steps": 8}, warmup_steps=2)
    ours, plain = small_model(), small_model()
    optimizer = build_optimizer(ours, DenseOptimizerOptions(use=use, lr=0.1, schedule=schedule))
    reference = getattr(torch.optim, use)(plain.parameters(), lr=0.1)
    for step in range(1, 6):
        fill_gradients(ours, step)
        fill_gradients(plain, step)
        reference.param_groups[0]["lr"] = 0.1 * min(1.0, step / 2) * (1 - step / 8)
        assert optimizer.rate(step) == pytest.approx(reference.param_groups[0]["lr"])
        optimizer.step(step)
        reference.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_are_forgotten_and_a_model_without_weights_is_fine() -> None:
    model = small_model()
    optimizer = build_optimizer(model, DenseOptimizerOptions())
    fill_gradients(model, 1)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
    empty = build_optimizer(torch.nn.ReLU(), DenseOptimizerOptions())
    empty.zero_grad()
    empty.step(1)
    assert empty.state_arrays()[0] == {}


@pytest.mark.parametrize(
    ("use", "options", "says"),
    [
        ("Adagard", {}, "did you mean 'Adagrad'"),
        ("Optimizer", {}, "is not known"),
        ("LBFGS", {}, "several times"),
        ("SparseAdam", {}, "dense gradients"),
        ("Adam", {"weight_decya": 0.1}, "did you mean 'weight_decay'"),
        ("Adam", {"lr": 0.1}, "option 'lr' is not known"),
        ("Adam", {"betas": [2.0, 0.9]}, "Invalid beta"),
        ("SGD", {"momentum": "much"}, "dense_optimizer SGD"),
    ],
)
def test_unknown_names_and_options_are_refused_with_the_known_ones(
    use: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        build_optimizer(small_model(), DenseOptimizerOptions(use=use, options=options))


def test_a_list_in_a_config_becomes_the_tuple_torch_wants() -> None:
    model = small_model()
    train(model, build_optimizer(model, DenseOptimizerOptions(use="Adam", options={"betas": [0.5, 0.9]})), range(1, 3))


def test_the_state_of_another_optimizer_or_model_is_refused() -> None:
    model = small_model()
    optimizer = build_optimizer(model, DenseOptimizerOptions(use="Adam"))
    train(model, optimizer, range(1, 2))
    arrays, described = optimizer.state_arrays()
    with pytest.raises(StateMismatch, match="this is SGD"):
        build_optimizer(model, DenseOptimizerOptions(use="SGD")).load_state_arrays(arrays, described)
    with pytest.raises(StateMismatch, match=r"0\.weight"):
        build_optimizer(torch.nn.Linear(2, 2), DenseOptimizerOptions(use="Adam")).load_state_arrays(arrays, described)
    del arrays["0.weight/exp_avg"]
    with pytest.raises(StateMismatch, match=r"0\.weight/exp_avg"):
        build_optimizer(model, DenseOptimizerOptions(use="Adam")).load_state_arrays(arrays, described)
