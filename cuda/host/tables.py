"""What a pool needs to know of its tables: dims, where states lie in a row, and how rules reach a kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cuda.backend import UpdateRule
from cuda.host.machine import LINE_BYTES
from cuda.host.rule_parts import FAMILY, MAX_HYPER, REST1, follow_from
from cuda.host.rules import RULES
from cuda.host.update import Rules
from cuda.plan import Float32s, Int64s
from pipeline.rows.digest import table_key
from pipeline.rows.spec import TableSpec

CODECS = ("fp32", "fp16")


def stride_for(row_bytes: int) -> int:
    """Distance between two slots' rows: whole cache lines where that costs at most a fifth more memory."""
    aligned = -(-row_bytes // LINE_BYTES) * LINE_BYTES
    return aligned if 5 * aligned <= 6 * row_bytes else row_bytes


class TableSet:
    """The tables of one pool, as arrays [T]."""

    def __init__(self, specs: Sequence[TableSpec]) -> None:
        self._specs = tuple(specs)
        self.row_bytes = max(spec.layout.row_bytes for spec in specs)
        self.dims_t = np.array([spec.dim for spec in specs], np.int64)
        self._states_t = np.array([_first_state(spec) for spec in specs], np.int64)
        self._used_bytes_t = np.array([spec.layout.row_bytes for spec in specs], np.int64)
        self.keys_t = np.array([table_key(spec.name) for spec in specs], np.uint64)
        """What the digests of rows begin with."""
        self._halves: tuple[tuple[str, ...], Int64s] | None = None
        self._last: tuple[tuple[UpdateRule, ...], Float32s, Rules] | None = None

    def rules(self, rules_t: Sequence[UpdateRule], step: int) -> Rules:
        """The rules of all tables for a kernel, at this step. Good until the next call.

        An unknown rule, or one whose states a table's rows lack, is our own bug.
        """
        wanted = tuple(rules_t)
        if self._last is None or self._last[0] != wanted:
            self._last = (wanted, *self._pack(wanted))
        _, hyper_th, rules = self._last
        for table, rule in enumerate(wanted):
            if rule.rule in FAMILY:
                hyper_th[table, REST1:] = follow_from(rule.hyper, step)
        return rules

    def halves(self, codecs_t: Sequence[str]) -> Int64s:
        """Which tables travel as halves [T]: 1, or 0 for as they are. A codec that the kernels lack is our own bug."""
        wanted = tuple(codecs_t)
        if self._halves is None or self._halves[0] != wanted:
            assert len(wanted) == len(self._specs), f"{len(wanted)} codecs for {len(self._specs)} tables"
            assert set(wanted) <= set(CODECS), f"codecs {wanted}; the kernels have {CODECS}"
            self._halves = (wanted, np.array([CODECS.index(codec) for codec in wanted], np.int64))
        return self._halves[1]

    def _pack(self, rules: tuple[UpdateRule, ...]) -> tuple[Float32s, Rules]:
        """The hyper-parameters, which must outlive the rules, and the rules."""
        assert len(rules) == len(self._specs), f"{len(rules)} rules for {len(self._specs)} tables"
        hyper_th = np.zeros((len(rules), MAX_HYPER), np.float32)
        for table, (rule, spec) in enumerate(zip(rules, self._specs, strict=True)):
            assert rule.rule in RULES, f"no rule {rule.rule!r}; this backend has {sorted(RULES)}"
            floats, known = sum(column.width for column in spec.layout.states), RULES[rule.rule]
            needed = known.per_weight * spec.dim + known.per_row
            assert floats >= needed, f"the rows of {spec.name} lack the states of {rule.rule}"
            hyper_th[table, : len(rule.hyper)] = rule.hyper
        codes_t = np.array([RULES[rule.rule].code for rule in rules], np.int64)
        hypers_t = hyper_th.ctypes.data + 4 * MAX_HYPER * np.arange(len(rules), dtype=np.int64)
        return hyper_th, Rules(codes_t, hypers_t, self._states_t, self._used_bytes_t)


def _first_state(spec: TableSpec) -> int:
    states = spec.layout.states
    return spec.layout.offsets[states[0].name] if states else 0
