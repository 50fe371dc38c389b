"""Dense weights leave and come back bit for bit; the digest sees every bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.models.arrays import dense_arrays, load_dense_arrays
from pipeline.models.digest import dense_digest, digest_of_arrays
from pipeline.models.errors import StateMismatch


def model_of(seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 1).bfloat16())


def test_weights_and_buffers_come_back_bit_for_bit() -> None:
    one, other = model_of(1), model_of(2)
    arrays = dense_arrays(one)
    assert dense_digest(one) != dense_digest(other)
    load_dense_arrays(other, arrays)
    assert dense_digest(other) == dense_digest(one) == digest_of_arrays(arrays)


def test_the_arrays_are_copies() -> None:
    model = model_of(1)
    arrays = dense_arrays(model)
    digest = digest_of_arrays(arrays)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert digest_of_arrays(arrays) == digest


def test_the_digest_sees_one_bit_a_name_a_shape_and_a_dtype() -> None:
    arrays = {"a": np.arange(6, dtype=np.float32)}
    digest = digest_of_arrays(arrays)
    flipped = arrays["a"].copy()
    flipped.view(np.uint32)[3] ^= 1
    flat = arrays["a"]
    others: list[dict[str, Any]] = [{"a": flipped}, {"b": flat}, {"a": flat.reshape(2, 3)}, {"a": flat.view(np.int32)}]
    assert len({digest, *(digest_of_arrays(other) for other in others)}) == 5


def test_weights_of_another_model_are_refused_and_change_nothing() -> None:
    model = model_of(1)
    digest = dense_digest(model)
    arrays = dense_arrays(model)
    with pytest.raises(StateMismatch, match="dense weights"):
        load_dense_arrays(model, {k: v for k, v in arrays.items() if k != "0.bias"})
    wrong = {**arrays, "2.bias": np.zeros(9, dtype=np.uint16), "0.bias": arrays["0.bias"] + 1}
    with pytest.raises(StateMismatch, match=r"2\.bias.*\(9,\)"):
        load_dense_arrays(model, wrong)
    assert dense_digest(model) == digest
