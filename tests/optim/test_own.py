"""An optimizer of somebody's own is one spec and one rule: configs name it, every tier keeps its states, and mistakes are told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import TypeAdapter

from cuda.backend import UpdateRule
from cuda.choose import check_rule
from cuda.errors import RuleRefused, RuleUnavailable
from cuda.host import register_rule, update
from cuda.host.own_rules import load_float, store_float
from cuda.host.rules import RULES
from pipeline.config import ConfigError, Origins, validate_part
from pipeline.optim import (
    OPTIMIZERS,
    OptimizerError,
    OptimizerOptions,
    Options,
    SgdOptions,
    layout_of,
    per_row,
    registry,
    rule_of,
)
from pipeline.optim.registry import GROUP, register_optimizer
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.session.settings import TableSettings
from tests.e2e.jobs import run_job
from tests.e2e.test_optimizers import check_bits, job_of
from tests.modules import test_float64
from tests.modules.float64 import DoubleTables, current_rows, furthest
from tests.optim.own import RMSPROP, RmspropOptions, rmsprop
from tests.optim.test_formulas import FORMULAS, Rows, State, train

OPTIONS: TypeAdapter[OptimizerOptions] = TypeAdapter(OptimizerOptions)
PATH = "tests.optim.own:RMSPROP"


def formula(o: Any, s: State, w: Any, g: Any, t: int) -> Any:
    s["v"] = o.rho * s.get("v", 0) + (1 - o.rho) * g**2
    s["m"] = o.beta * s.get("m", 0) + g / (np.sqrt(s["v"] / (1 - o.rho**t)) + o.eps)
    return w - o.lr * s["m"]


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    known = dict(OPTIMIZERS)
    yield
    registry._registered.clear()
    registry._registered.update(known)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register_optimizer(RMSPROP)
    monkeypatch.setitem(FORMULAS, "rmsprop", formula)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("dim", [4, 20, 64])
def test_twenty_steps_are_those_of_its_formula(dim: int) -> None:
    found, expected = train(RmspropOptions(lr=0.02, max_norm=1.2), dim)
    assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.usefixtures("registered")
def test_through_lookup_backward_update_and_the_tiers_it_is_what_float64_has() -> None:
    options = RmspropOptions(lr=0.02)
    with test_float64.module_of(test_float64.POOLED, options) as module:
        expected = DoubleTables(test_float64.POOLED, options, current_rows(module))
        test_float64.train(module, test_float64.POOLED, expected)
        assert furthest(current_rows(module), expected.rows) <= 1e-6
        assert module._engine.store.counters.evictions > 0


def nudge(by: float) -> Any:
    amount = np.float32(by)

    def nudged(row: int, _state: int, _gradient: int, _dim: int, _hyper: int) -> None:
        store_float(row, load_float(row) + amount)

    return nudged


def test_a_rule_whose_code_has_changed_is_never_served_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever began with the old code keeps it; and kernels are compiled for none of them."""
    monkeypatch.setattr(RULES, "_rules", dict(RULES._rules))
    tables = []
    for by in (1.0, 10.0):
        register_rule("nudge", nudge(by))
        tables.append(Rows(SgdOptions(), np.zeros((1, 4), np.float32)))
        tables[-1].rule = UpdateRule("nudge", (0.1,))
        for rows in tables:
            rows.step([0], np.ones((1, 4), np.float32), 1)
    assert [rows.weights()[0].tolist() for rows in tables] == [[2, 0, 0, 0], [10, 0, 0, 0]]
    assert len(update.update.signatures) == 1  # type: ignore[attr-defined]


def test_a_config_names_it_and_its_bits_depend_on_no_tier_and_on_no_resume(tmp_path: Path) -> None:
    job = job_of(RmspropOptions(lr=0.02, max_norm=0.5))
    for table in job["tables"].values():
        table["optimizer"]["kind"] = PATH
    check_bits(tmp_path, job, "disk")


def test_a_package_names_it(tmp_path: Path) -> None:
    """As an installed one does. In a process of its own, where nobody has loaded it."""
    described = tmp_path / "somebodys-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[{GROUP}]\nrmsprop = {PATH}\n")
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from pydantic import TypeAdapter\n"
        "from pipeline.optim import OptimizerOptions, rule_of\n"
        "print(rule_of(TypeAdapter(OptimizerOptions).validate_python({'kind': 'rmsprop', 'lr': 0.5})).hyper[0])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "0.5\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"kind": "rmsprob"},
            r"found 'rmsprob' \(did you mean 'rmsprop'\?\); one of 'adagrad', .*'rmsprop'.* would do",
        ),
        ({"kind": PATH, "rh": 0.5}, r"unknown key 'rh'; did you mean 'rho'\? Known keys here: kind, lr, .*rho, beta$"),
        ({"kind": "rmsprop", "rho": 1}, r"found 1; wanted less than 1 \(rho: How much of the squares a step keeps\.\)"),
        ({"kind": "rmsprop", "lr": "much"}, r"found 'much'; wanted a valid number"),
        ({"kind": "sgd", "rho": 0.5}, r"unknown key 'rho'.* Known keys here: kind, lr, max_gradient, max_norm$"),
        ({"lr": 0.5}, r"the key is missing; one of 'sgd', .*'rmsprop'"),
        ({"kind": "tests.optim.own:ADAM"}, r"no 'ADAM' in 'tests\.optim\.own'"),
        ({"kind": "tests.optim.nowhere:ADAM"}, r"importing it failed: ModuleNotFoundError"),
        ({"kind": "tests.optim.own:rmsprop"}, r"is a function; an optimizer is an OptimizerSpec"),
    ],
)
@pytest.mark.usefixtures("registered")
def test_wrong_options_are_told_as_those_of_others(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate_part(TableSettings, {"optimizer": given}, "tables.t", Origins({(): "a file"}))


class LateOptions(Options):
    kind: Literal["late"] = "late"
    rate: float = 1.0


LATE = replace(RMSPROP, name="late", options=LateOptions, hyper=("lr", "rate"), state_columns=lambda _o, _d: ())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (replace(LATE, name="sgd"), r'need the field `kind: Literal\["sgd"\] = "sgd"`'),
        (replace(LATE, hyper=("rate",)), "lr first"),
        (replace(LATE, hyper=("lr", "eps")), r"hyper lists options, lr first; got \('lr', 'eps'\)"),
        (replace(LATE, options=dict), "subclass of pipeline.optim.Options"),  # type: ignore[arg-type]
        (replace(LATE, state_columns=lambda _o, _d: (per_row("a"), replace(per_row("b"), width=8))), "its states are"),
        (replace(RMSPROP, options=type("RmspropOptions", (RmspropOptions,), {})), "two optimizers are named 'rmsprop'"),
    ],
)
@pytest.mark.usefixtures("registered")
def test_a_spec_that_does_not_fit_together_does_not_join(spec: Any, said: str) -> None:
    known = dict(OPTIMIZERS)
    with pytest.raises(OptimizerError, match=said):
        register_optimizer(spec)
    assert dict(OPTIMIZERS) == known


@pytest.mark.usefixtures("registered")
def test_a_rule_that_a_backend_lacks_is_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(RmspropOptions())
    spec = TableSpec("t", layout_of(RmspropOptions(), 8), Initializer(), 0)
    rule = rule_of(RmspropOptions())
    check_rule("host", spec, rule)
    with pytest.raises(RuleUnavailable, match=r"rule 'late' of the host backend: there is none; .*rmsprop"):
        check_rule("host", spec, replace(rule, rule="late"))
    bare = replace(spec, layout=layout_of(OPTIONS.validate_python({"kind": "sgd"}), 8))
    with pytest.raises(RuleUnavailable, match=r"it works on states of \[8, 8, 1\] numbers; rows have \[\]"):
        check_rule("host", bare, rule)
    monkeypatch.delitem(RULES._rules, "rmsprop")
    with pytest.raises(
        ConfigError, match=r"tables\.shared\.optimizer.*rule 'rmsprop' of the host backend: there is none"
    ):
        run_job(tmp_path, job)


def no_rule(row: int, state: int) -> None: ...


def not_for_numba(row: int, state: int, gradient: int, dim: int, hyper: int) -> None:
    print(row.bit_length(), state, gradient, dim, hyper)


def test_options_of_an_optimizer_that_has_not_joined_say_so() -> None:
    with pytest.raises(OptimizerError, match="'late' is not known; register_optimizer"):
        rule_of(LateOptions())


@pytest.mark.parametrize(
    ("name", "function", "said"),
    [
        ("new", no_rule, r"no function of \(row, state, gradient, dim, hyper\)"),
        ("sgd", rmsprop, "there is a rule of this name, a part of the kernels"),
        ("adam", rmsprop, "there is a rule of this name, cuda.host.rules:adam"),
    ],
)
def test_what_is_no_rule_is_refused(name: str, function: Any, said: str) -> None:
    with pytest.raises(RuleRefused, match=said):
        register_rule(name, function)


def test_a_rule_that_cannot_be_compiled_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RULES, "_rules", dict(RULES._rules))
    register_rule("never", not_for_numba)
    with pytest.raises(RuleRefused, match="rule 'never' of the host backend: Numba cannot compile it"):
        assert RULES["never"].code
