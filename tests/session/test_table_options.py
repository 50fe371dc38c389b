"""What a config says of a table's rows and of their updates is what the store and the backend are told."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.config import ConfigError, load
from pipeline.session.plan import Plan, make_plan
from pipeline.session.settings import Settings
from tests.e2e.jobs import RAGGED


def plan_of(tmp_path: Path, **wide: Any) -> Plan:
    """The plan of a job of two tables, ``shared`` as by default and ``wide`` with these options."""
    job = copy.deepcopy(RAGGED)
    job["tables"]["wide"] |= wide
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return make_plan(load([str(path)], [f"run.dir={tmp_path / 'run'}"], Settings))


def test_by_default_rows_are_float32_and_rates_constant(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert {column.dtype for spec in plan.specs for column in spec.layout.columns} == {"float32"}
    assert plan.rates == (None, None)


def test_each_table_has_its_own_columns_rounding_limits_and_rate(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        weights="fp16",
        states="bf16",
        rounding="nearest",
        optimizer={"kind": "adam", "max_gradient": 0.5, "max_norm": 3},
        schedule={"use": "step", "warmup_steps": 2, "options": {"every": 3, "factor": 0.5}},
    )
    assert [column.dtype for column in plan.specs[1].layout.columns] == ["float16", "bfloat16", "bfloat16"]
    shared, wide = plan.rules
    assert (shared.rounding, shared.max_gradient, shared.max_norm) == ("stochastic", 0.0, 0.0)
    assert (wide.rounding, wide.max_gradient, wide.max_norm) == ("nearest", 0.5, 3.0)
    assert plan.rates[0] is None
    rate = plan.rates[1]
    assert rate is not None
    assert [rate(step) for step in range(1, 8)] == [0.5, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert wide.with_rate(0.25).hyper[0] == float(np.float32(0.01)) * 0.25


@pytest.mark.parametrize(
    ("wide", "said"),
    [
        ({"states": "bf16"}, ["rowwise_adagrad keeps its states in fp32", "adam, partial_rowwise_adam"]),
        ({"weights": "fp8"}, ["tables.wide.weights", "bf16"]),
        ({"rounding": "up"}, ["tables.wide.rounding", "nearest"]),
        ({"schedule": {"use": "step", "options": {"evry": 3}}}, ["tables.wide.schedule", "every"]),
        ({"optimizer": {"kind": "sgd", "max_norm": -1}}, ["tables.wide.optimizer", "max_norm"]),
        ({"optimizer": {"kind": "sgd", "max_gradient": "inf"}}, ["tables.wide.optimizer", "max_gradient"]),
        ({"optimizer": {"kind": "sgd", "eps": 0.1}}, ["tables.wide.optimizer", "eps"]),
    ],
)
def test_what_no_table_can_have_is_refused_by_name(tmp_path: Path, wide: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, **wide)
    assert all(words in str(caught.value) for words in said), str(caught.value)
