"""What the host knows each update rule by. A rule that kernels do not hold is compiled by itself and called at its address.

So a rule can be added to compiled kernels: no kernel, and nothing that is kept on disk, depends on which rules there are. Rules of
this folder are kept on disk like its kernels. Rules from elsewhere are compiled once in each process and never kept, because nobody
could tell when what they are built of has changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final

from cuda.backend import UpdateRule
from cuda.errors import RuleRefused, RuleUnavailable
from cuda.host.cache import our_cache
from cuda.host.numba_types import runtime, types
from pipeline.rows.spec import TableSpec

CALLED: Final = 2
"""Lower codes are rules inside kernels. Any other code is the address of a rule's function."""
ARGUMENTS: Final = ("row", "state", "gradient", "dim", "hyper")
Follow = Callable[[Sequence[float], int], Sequence[float]]
"""(hyper-parameters, step) -> numbers of the step, which a rule finds behind its hyper-parameters."""


class Rule:
    """One rule. ``per_weight``, ``per_row``: its states of a number per weight, and of one number, behind them."""

    def __init__(self, name: str, per_weight: int, per_row: int, function: Any = None, inlined: int = 0) -> None:
        self.name, self.per_weight, self.per_row, self.function = name, per_weight, per_row, function
        self.follow: Follow | None = None
        self.is_kept = False
        self._inlined = inlined
        self._compiled: Any = None

    @property
    def code(self) -> int:
        """What kernels know it by. Raises RuleRefused, as ``compile``."""
        if self.function is None:
            return self._inlined
        self.compile()
        return int(self._compiled.address)

    def compile(self) -> None:
        """Compile it, or load it from disk, the first time; nothing to do for a part of the kernels. Raises RuleRefused."""
        if self.function is not None and self._compiled is None:
            with our_cache() if self.is_kept else nullcontext():
                self._compiled = self._made()

    def _made(self) -> Any:
        kind = types.void(*[types.int64] * len(ARGUMENTS))
        made = runtime.cfunc(kind, cache=self.is_kept, nopython=True, nogil=True, error_model="numpy")
        try:
            return made(self.function)
        except runtime.core.errors.NumbaError as error:
            raise RuleRefused(self.name, f"Numba cannot compile it: {error}") from error


class RuleTable(Mapping[str, Rule]):
    """All rules of the host, by name."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}
        self._replaced: list[Rule] = []
        """Their code may be in use."""

    def add_inlined(self, name: str, code: int, per_weight: int = 0, per_row: int = 0) -> None:
        """A rule that kernels hold themselves."""
        self._rules[name] = Rule(name, per_weight, per_row, inlined=code)

    def add(
        self,
        name: str,
        function: Any,
        per_weight: int,
        per_row: int,
        follow: Follow | None = None,
        *,
        is_kept: bool = True,
    ) -> None:
        """Raises RuleRefused. The same function again, of a module that was loaded again, replaces itself."""
        function = getattr(function, "py_func", function)
        if not callable(function) or len(inspect.signature(function).parameters) != len(ARGUMENTS):
            raise RuleRefused(name, f"it is no function of ({', '.join(ARGUMENTS)})")
        if per_weight < 0 or per_row < 0:
            raise RuleRefused(name, f"it has {per_weight} states per weight and {per_row} per row; both are 0 or more")
        if name in self._rules and _place(self._rules[name].function) != _place(function):
            raise RuleRefused(name, f"there is a rule of this name, {_place(self._rules[name].function)}")
        if name in self._rules:
            self._replaced.append(self._rules[name])
        rule = Rule(name, per_weight, per_row, function)
        rule.follow, rule.is_kept = follow, is_kept
        self._rules[name] = rule

    def check(self, spec: TableSpec, rule: UpdateRule) -> None:
        """Raises RuleUnavailable where the host has no such rule or a table's rows lack its states, RuleRefused as ``Rule.code``."""
        if rule.rule not in self._rules:
            raise RuleUnavailable("host", rule.rule, f"there is none; this backend has {', '.join(sorted(self))}")
        known, widths = self._rules[rule.rule], [column.width for column in spec.layout.states]
        wanted = [spec.dim] * known.per_weight + [1] * known.per_row
        if widths != wanted:
            raise RuleUnavailable("host", rule.rule, f"it works on states of {wanted} numbers; rows have {widths}")
        known.compile()

    def __getitem__(self, name: str) -> Rule:
        return self._rules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)


def _place(function: Any) -> str:
    if function is None:
        return "a part of the kernels"
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', function)}"
