"""How rows are updated at a step: each table's rule, with the learning rate that its schedule gives; and gradients that are no numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from cuda.backend import UpdateRule
from cuda.plan import Int64s
from pipeline.rows.spec import TableSpec
from pipeline.store.errors import BadGradients

Rate = Callable[[int], float]
"""Step -> what the learning rate is multiplied with. Pure, so that a resumed run needs no state."""


class StepRules:
    """``rates`` by table, None for a constant rate; not given: all are."""

    def __init__(self, rules: Sequence[UpdateRule], rates: Sequence[Rate | None] | None) -> None:
        self._rules = tuple(rules)
        self._rates = (None,) * len(self._rules) if rates is None else tuple(rates)
        self._scheduled = any(rate is not None for rate in self._rates)
        assert len(self._rates) == len(self._rules)

    def at(self, step: int) -> tuple[UpdateRule, ...]:
        if not self._scheduled:
            return self._rules
        pairs = zip(self._rules, self._rates, strict=True)
        return tuple(rule if rate is None else rule.with_rate(rate(step)) for rule, rate in pairs)


def count_bad(bad_t: Int64s, specs: Sequence[TableSpec], step: int, skip: bool, counted: Counter[str]) -> None:
    """Count the rows of a step whose gradient was no number. Unless they are to be skipped, raises BadGradients."""
    if not bad_t.any():
        return
    found = {spec.name: count for spec, count in zip(specs, bad_t.tolist(), strict=True) if count}
    counted.update(found)
    if not skip:
        raise BadGradients(step, found)
