"""Every optimizer's options, rows and rule fit together and are known to the backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from cuda.host.rules import RULES
from pipeline.optim import OPTIMIZERS, OptimizerOptions, RowwiseAdagradOptions, SgdOptions, layout_of, rule_of

OPTIONS: TypeAdapter[OptimizerOptions] = TypeAdapter(OptimizerOptions)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_config_names_every_optimizer(name: str) -> None:
    options = OPTIONS.validate_python({"kind": name})
    assert isinstance(options, OPTIMIZERS[name].options)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_the_host_backend_has_every_rule_and_its_states(name: str) -> None:
    options = OPTIONS.validate_python({"kind": name})
    known = RULES[rule_of(options).rule]
    states = sum(column.width for column in layout_of(options, 8).states)
    assert states == 8 * known.per_weight + known.per_row


def test_sgd_rows_are_weights_alone() -> None:
    layout = layout_of(SgdOptions(), 64)
    assert [column.name for column in layout.columns] == ["weight"]
    assert layout.row_bytes == 256


def test_rowwise_adagrad_rows_end_with_one_accumulator() -> None:
    layout = layout_of(RowwiseAdagradOptions(), 64)
    assert [(column.name, column.width, column.role) for column in layout.states] == [("momentum", 1, "state")]
    assert layout.offsets["momentum"] == 256
    assert layout.row_bytes == 272


def test_a_rule_carries_hyper_parameters_as_float32_in_the_order_of_its_spec() -> None:
    rule = rule_of(RowwiseAdagradOptions(lr=0.1, eps=1e-3))
    assert rule.hyper == (float(np.float32(0.1)), float(np.float32(1e-3)), 0.0, 0.0)
    assert rule_of(RowwiseAdagradOptions(max_norm=0.1)).max_norm == float(np.float32(0.1))
    assert rule_of(SgdOptions(lr=0.25)).hyper == (0.25,)


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "adam2"},
        {"kind": "sgd", "eps": 1e-8},
        {"kind": "sgd", "lr": 0},
        {"kind": "sgd", "lr": "inf"},
        {"kind": "rowwise_adagrad", "eps": 0},
        {"kind": "rowwise_adagrad", "learning_rate": 0.1},
        {"kind": "rowwise_adagrad", "weight_decay": 0.1},
        {"kind": "rowwise_adagrad", "decay": "l3"},
        {"kind": "adam", "beta1": 1},
        {"kind": "adam", "beta2": -0.1},
        {"kind": "adam", "momentum": 0.9},
        {"kind": "partial_rowwise_adam", "rowwise_bias_correction": True},
        {"kind": "lars_sgd", "eta": 0},
        {},
    ],
)
def test_bad_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OPTIONS.validate_python(bad)
