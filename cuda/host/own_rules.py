"""What a rule of your own is written with, and how the host gets to know it.

A rule is a function ``(row, state, gradient, dim, hyper)`` that changes one row in place, all of it addresses of float32 numbers, as
``rules`` says. It is compiled by Numba, must not raise, and may run on any thread. ``change`` and ``total`` make device functions
over a whole row out of a formula (``elementwise``); ``dot``, ``load_float`` and ``store_float`` are of ``vector``.
"""

from __future__ import annotations

from typing import Any

from cuda.host.elementwise import WEIGHT, Lanes, Operands, change, sqrt, total
from cuda.host.rule_table import Follow
from cuda.host.rules import NONE, RULES
from cuda.host.vector import dot, load_float, store_float

__all__ = [
    "NONE",
    "WEIGHT",
    "Lanes",
    "Operands",
    "change",
    "dot",
    "load_float",
    "register_rule",
    "sqrt",
    "store_float",
    "total",
]


def register_rule(
    name: str, function: Any, *, per_weight: int = 0, per_row: int = 0, follow: Follow | None = None
) -> None:
    """Let optimizers use a rule of this name on the host.

    ``per_weight``, ``per_row``: how many states of a number per weight its rows have, and of one number, behind them. ``follow``:
    (hyper-parameters, step) -> numbers that a step has, computed once a step; the rule finds them behind its hyper-parameters.
    Nothing is compiled yet. Raises RuleRefused for what is no such function, and for the name of another rule.
    """
    RULES.add(name, function, per_weight, per_row, follow, is_kept=False)
