"""Which rows end when, one id at a time in plain dicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pipeline.store import ExpiryRule


class PlainUses:
    """Rows of one table that every id has from its first occurrence on."""

    def __init__(self, rule: ExpiryRule) -> None:
        self.rule, self.last, self.uses, self.rounds = rule, dict[int, int](), Counter[int](), 0

    def step(self, step: int, ids: Iterable[int]) -> list[int]:
        """Ids occur in a step; returns those whose rows end with it, rising."""
        for row_id in ids:
            self.last[row_id] = step
            self.uses[row_id] += 1
        if step // self.rule.every == self.rounds:
            return []
        self.rounds = step // self.rule.every
        ended = [i for i, last in self.last.items() if self.rule.steps is not None and step - last >= self.rule.steps]
        left = sorted((i for i in self.last if i not in ended), key=self._rank)
        if self.rule.rows is not None and len(left) > self.rule.rows:
            ended += left[: len(left) - self.rule.rows]
        for row_id in ended:
            del self.last[row_id], self.uses[row_id]
        if self.rule.score == "uses":
            self.uses = Counter({i: uses // 2 for i, uses in self.uses.items()})
        return sorted(ended)

    def _rank(self, row_id: int) -> tuple[int, int, int]:
        last = self.last[row_id]
        return (last if self.rule.score == "last_use" else self.uses[row_id], last, row_id)
