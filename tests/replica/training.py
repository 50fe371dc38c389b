"""What a trainer of dicts does in random streams: the rules that all machines share."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.replica.trainer import DictTrainer

ALL_IDS: Final = (*range(24), -1, -(2**63), 2**63 - 1)
IDS: Final = st.lists(st.sampled_from(ALL_IDS), max_size=12, unique=True)
PROBES: Final = [-2, 24, 25, *ALL_IDS]
"""Ids that a trainer may have, and some that it never has."""


class Training(RuleBasedStateMachine):
    """Who inherits makes the trainer, of tables a and b."""

    trainer: DictTrainer

    @rule(a=IDS, b=IDS, dense=st.booleans())
    def train(self, a: list[int], b: list[int], dense: bool) -> None:
        if dense:
            self.trainer.dense = {"w": self.trainer.rng.normal(size=9)}
        self.trainer.update({"a": a, "b": b})

    @rule(table=st.sampled_from(["a", "b"]), ids=IDS)
    def forget(self, table: str, ids: list[int]) -> None:
        self.trainer.forget(table, ids)
