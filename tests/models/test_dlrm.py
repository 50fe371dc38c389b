"""The DLRM agrees with a plain torch one, forward and backward, and refuses what it cannot be built for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.models.dot import DotInteraction
from pipeline.models.errors import ModelError
from pipeline.models.factory import ModelInputs, build_model
from tests.models.test_features import features_of


def inputs_of(dims: tuple[int, ...], num_dense: int = 0, sequences: tuple[str, ...] = ()) -> ModelInputs:
    return ModelInputs(tuple(f"f{n}" for n in range(len(dims))), dims, sequence_names=sequences, num_dense=num_dense)


def plain_layers(model: Any, prefix: str, x: torch.Tensor, *, last_relu: bool) -> torch.Tensor:
    weights = [p for name, p in model.named_parameters() if name.startswith(prefix)]
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for number, (weight, bias) in enumerate(pairs):
        x = x @ weight.T + bias
        if last_relu or number + 1 < len(pairs):
            x = x.clamp(min=0)
    return x


def plain_dlrm(model: Any, vectors: list[torch.Tensor], dense: torch.Tensor, interaction: str) -> torch.Tensor:
    """The formula, term by term, in the order of its definition."""
    bottom = [plain_layers(model, "bottom", dense, last_relu=True)] if dense.shape[1] else []
    every = bottom + vectors
    if interaction == "cat":
        top = every
    else:
        dots = [(every[i] * every[j]).sum(1, keepdim=True) for i in range(len(every)) for j in range(i)]
        top = bottom + dots
    return plain_layers(model, "top", torch.cat(top, 1), last_relu=False).squeeze(1)


@pytest.mark.parametrize("interaction", ["dot", "cat"])
@pytest.mark.parametrize("num_dense", [0, 3])
@pytest.mark.parametrize("count", [2, 5])
def test_it_agrees_with_a_plain_torch_model_forward_and_backward(interaction: str, num_dense: int, count: int) -> None:
    options = {"bottom_mlp": [8, 4], "top_mlp": [16, 1], "interaction": interaction}
    model = build_model("dlrm", options, inputs_of((4,) * count, num_dense), seed=7).double()
    features = features_of((4,) * count, batch=9)
    dense = torch.randn(9, num_dense, dtype=torch.float64)
    leaf = features.pooled_bs.detach().double().requires_grad_()
    object.__setattr__(features, "pooled_bs", leaf)
    out = model(features, dense)
    out.square().sum().backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None] + [leaf.grad]
    model.zero_grad()
    mirror = leaf.detach().clone().requires_grad_()
    expected = plain_dlrm(model, list(torch.split(mirror, 4, dim=1)), dense, interaction)
    expected.square().sum().backward()  # type: ignore[no-untyped-call]
    plain = [p.grad for p in model.parameters() if p.grad is not None] + [mirror.grad]
    assert out.shape == (9,)
    torch.testing.assert_close(out, expected)
    assert len(grads) == len(plain) == len(list(model.parameters())) + 1
    for grad, other in zip(grads, plain, strict=True):
        torch.testing.assert_close(grad, other)


@settings(max_examples=15, deadline=None)
@given(batch=st.integers(0, 4), count=st.integers(2, 6), dim=st.integers(1, 5), seed=st.integers(0, 999))
def test_the_dot_interaction_has_the_gradient_of_its_formula(batch: int, count: int, dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    vectors = torch.randn(batch, count, dim, dtype=torch.float64, requires_grad=True)
    dot = DotInteraction(count)
    assert dot(vectors).shape == (batch, count * (count - 1) // 2)
    if batch:
        assert torch.autograd.gradcheck(dot, (vectors,))


def test_a_model_is_a_function_of_its_seed_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    models = [build_model("dlrm", {}, inputs_of((4, 4)), seed) for seed in (3, 3, 4)]
    assert torch.equal(before, torch.random.get_rng_state())
    one, same, other = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


class Plain(torch.nn.Module):
    def __init__(self, inputs: ModelInputs, width: int = 3) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(sum(inputs.dims), width)


def not_a_model(inputs: ModelInputs) -> int:
    return len(inputs.names)


def test_a_model_of_ones_own_is_found_by_module_and_class() -> None:
    model: Any = build_model(f"{__name__}:Plain", {"width": 5}, inputs_of((4, 2)), seed=0)
    assert model.layer.weight.shape == (5, 6)


@pytest.mark.parametrize(
    ("use", "options", "inputs", "says"),
    [
        ("dlmr", {}, inputs_of((4, 4)), "did you mean 'dlrm'"),
        ("dlrm", {"top_mpl": [1]}, inputs_of((4, 4)), "did you mean 'top_mlp'"),
        ("dlrm", {"top_mlp": [8, 2]}, inputs_of((4, 4)), "the last width is 1"),
        ("dlrm", {"top_mlp": "wide"}, inputs_of((4, 4)), "top_mlp"),
        ("dlrm", {"interaction": "sum"}, inputs_of((4, 4)), "'dot' or 'cat'"),
        ("dlrm", {}, inputs_of((4, 8)), "'f1': 8.*interaction: cat"),
        ("dlrm", {"bottom_mlp": [8]}, inputs_of((4, 4), 2), "'bottom_mlp': 8"),
        ("dlrm", {"bottom_mlp": []}, inputs_of((4, 4), 2), "2 dense columns"),
        ("dlrm", {}, inputs_of((4,)), "use cat"),
        ("dlrm", {}, inputs_of(()), "no pooled feature"),
        ("dlrm", {}, inputs_of((4, 4), 0, ("visits",)), "visits have pooling none"),
        ("no_such_package.x:Y", {}, inputs_of((4, 4)), "no_such_package"),
        (f"{__name__}:Plane", {}, inputs_of((4, 4)), "did you mean 'Plain'"),
        (f"{__name__}:Plain", {"widht": 5}, inputs_of((4, 4)), "did you mean 'width'"),
        (f"{__name__}:not_a_model", {}, inputs_of((4, 4)), "torch.nn.Module was expected"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_way_out(
    use: str, options: dict[str, Any], inputs: ModelInputs, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        build_model(use, options, inputs, seed=0)
