"""What a pool needs to know of its tables: dims, where states lie in a row, and how rules reach a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuda.backend import RowBytes, UpdateRule
from cuda.host.machine import LINE_BYTES
from cuda.host.narrow import LANES
from cuda.host.recycle import aligned_bytes
from cuda.host.rules import RULES
from cuda.host.update_rules import Rules
from cuda.plan import Float32s, Int64s
from pipeline.rows.codec.formulas import KINDS as CODECS
from pipeline.rows.codec.formulas import row_bytes
from pipeline.rows.digest import table_key
from pipeline.rows.initial import table_key as noise_key
from pipeline.rows.narrow import KINDS, SINGLE
from pipeline.rows.spec import TableSpec

NOISE_BYTES = 128
"""``noise`` writes so many at a time."""


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
        self.kinds_t = np.array([KINDS[spec.layout.weight_dtype] for spec in specs], np.int64)
        """What weights are, ``rows.narrow``."""
        self.layouts = tuple(spec.layout for spec in specs)
        self._stored = [Stored.of(spec) for spec in specs]
        self.keys_t = np.array([table_key(spec.name) for spec in specs], np.uint64)
        """What the digests of rows begin with."""
        self._codecs: tuple[tuple[str, ...], Int64s, Int64s] | None = None
        self._last: tuple[tuple[UpdateRule, ...], Float32s, Rules] | None = None
        self.width = whole_lanes(int(self.dims_t.max()))
        """Floats that hold any row's weights, and are written 16 at a time."""
        self._stored_t = {
            name: np.array([getattr(stored, name.removesuffix("_t")) for stored in self._stored], np.int64)
            for name in STORED
        }
        self._noise_keys_t = np.array([noise_key(spec.seed, spec.name) for spec in specs], np.uint64).view(np.int64)
        self._numbers = self.width + max(whole_lanes(stored.num_numbers) for stored in self._stored)

    def rules(self, rules_t: Sequence[UpdateRule], step: int) -> Rules:
        """The rules of all tables for a kernel, at this step. Good until the next call.

        An unknown rule, or one whose states a table's rows lack, is our own bug.
        """
        wanted = tuple(rules_t)
        if self._last is None or self._last[0] != wanted:
            self._last = (wanted, *self._pack(wanted))
        _, hyper_th, rules = self._last
        for table, rule in enumerate(wanted):
            follow, known = RULES[rule.rule].follow, len(rule.hyper)
            if follow is not None:
                numbers = follow(rule.hyper, step)
                hyper_th[table, known : known + len(numbers)] = numbers
        return rules

    def rooms(self, threads: int) -> RowBytes:
        """A room for each thread to widen a row's weights in: floats, then as many numbers of 16 bits. [threads, bytes]"""
        return _rooms(threads, (4 + 2) * self.width)

    def update_rooms(self, threads: int) -> RowBytes:
        """A room for each thread of an update: a gradient, then floats for a row's numbers, then as many of 16 bits with their noise."""
        return _rooms(threads, 4 * self.width + (4 + 2) * self._numbers + NOISE_BYTES)

    def codecs(self, codecs_t: Sequence[str]) -> tuple[Int64s, Int64s]:
        """How kernels name the codec of each table [T], and the bytes of its encoded row [T]. A codec that they lack is our own bug."""
        wanted = tuple(codecs_t)
        if self._codecs is None or self._codecs[0] != wanted:
            assert len(wanted) == len(self._specs), f"{len(wanted)} codecs for {len(self._specs)} tables"
            assert set(wanted) <= set(CODECS), f"codecs {wanted}; the kernels have {list(CODECS)}"
            kinds = [CODECS[codec] for codec in wanted]
            sizes = [row_bytes(kind, spec.dim) for kind, spec in zip(kinds, self._specs, strict=True)]
            self._codecs = (wanted, np.array(kinds, np.int64), np.array(sizes, np.int64))
        return self._codecs[1:]

    def _pack(self, rules: tuple[UpdateRule, ...]) -> tuple[Float32s, Rules]:
        """The hyper-parameters, which must outlive the rules, and the rules."""
        assert len(rules) == len(self._specs), f"{len(rules)} rules for {len(self._specs)} tables"
        hyper_th = np.zeros((len(rules), max(map(_num_hyper, rules))), np.float32)
        for table, (rule, spec) in enumerate(zip(rules, self._specs, strict=True)):
            assert rule.rule in RULES, f"no rule {rule.rule!r}; this backend has {sorted(RULES)}"
            known, stored = RULES[rule.rule], self._stored[table]
            enough = stored.num_states >= known.per_weight * spec.dim
            enough = enough and stored.num_states + stored.num_singles >= known.per_weight * spec.dim + known.per_row
            assert enough, f"the rows of {spec.name} lack the states of {rule.rule}"
            hyper_th[table, : len(rule.hyper)] = rule.hyper
        return hyper_th, Rules(
            rules_t=np.array([RULES[rule.rule].code for rule in rules], np.int64),
            hypers_t=hyper_th.ctypes.data + hyper_th.strides[0] * np.arange(len(rules), dtype=np.int64),
            max_norms_t=np.array([rule.max_norm for rule in rules], np.float32),
            **self._stored_t,
            by_chance_t=np.array([rule.rounding == "stochastic" for rule in rules], np.int64),
            keys_t=self._noise_keys_t,
            gradient_bytes=4 * self.width,
            room_numbers=self._numbers,
        )


STORED = (
    "states_t", "used_bytes_t", "narrow_t", "weight_kinds_t", "state_kinds_t", "num_states_t", "singles_t", "num_singles_t",
)  # fmt: skip
"""The fields of ``Rules`` that follow from how rows lie."""


@dataclass(frozen=True)
class Stored:
    """How the rows of a table lie: an entry of each of ``STORED``."""

    states: int
    used_bytes: int
    narrow: int
    weight_kinds: int
    state_kinds: int
    num_states: int
    singles: int
    num_singles: int

    @staticmethod
    def of(spec: TableSpec) -> Stored:
        layout, states = spec.layout, spec.layout.states
        weight = KINDS[layout.weight_dtype]
        per_weight = [column for column in states if column.width == spec.dim and column.dtype == states[0].dtype]
        singles = states[len(per_weight) :]
        assert all(column.dtype == "float32" for column in singles), f"{spec.name}: its states are mixed: {states}"
        state = KINDS[per_weight[0].dtype] if per_weight else SINGLE
        start = layout.offsets[states[0].name] if states else 0
        return Stored(
            states=start,
            used_bytes=layout.row_bytes,
            narrow=int(weight != SINGLE or state != SINGLE),
            weight_kinds=weight,
            state_kinds=state,
            num_states=sum(column.width for column in per_weight),
            singles=layout.offsets[singles[0].name] if singles else start,
            num_singles=sum(column.width for column in singles),
        )

    @property
    def num_numbers(self) -> int:
        """Of the states, where they are widened: a last one may be half read."""
        return whole_lanes(self.num_states) + self.num_singles


def _num_hyper(rule: UpdateRule) -> int:
    """How many numbers a rule finds at ``hyper``: its hyper-parameters, then those that follow from the step."""
    follow = RULES[rule.rule].follow if rule.rule in RULES else None
    return len(rule.hyper) + (0 if follow is None else len(follow(rule.hyper, 1)))


def whole_lanes(count: int) -> int:
    return -(-count // LANES) * LANES


def _rooms(threads: int, num_bytes: int) -> RowBytes:
    width = -(-num_bytes // LINE_BYTES) * LINE_BYTES
    return aligned_bytes(threads * width).reshape(threads, width)
