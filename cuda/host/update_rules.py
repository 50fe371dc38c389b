"""What each table's update needs, and the update of a row that keeps numbers of 16 bits: widened, changed, rounded back.

Such a row's numbers are its weights, then its states of a number per weight: number n of a row gets bits n of the row's ``noise``,
whichever of the two are narrow.
"""

from __future__ import annotations

from typing import NamedTuple

from cuda.host.compiled import device, seldom
from cuda.host.machine import pointer, put_bytes
from cuda.host.narrow import narrow_row, whole, widen_row
from cuda.host.noise import noise
from cuda.host.rules import apply
from cuda.host.vector import limit_norm
from cuda.plan import Float32s, Int64s
from pipeline.rows.narrow import SINGLE


class Rules(NamedTuple):
    """By table. Arrays outside kernels, pointers in their loops."""

    rules_t: Int64s
    hypers_t: Int64s
    """Address of each table's hyper-parameters."""
    max_norms_t: Float32s
    """Longer rows are scaled back to it; 0: none are."""
    states_t: Int64s
    """Byte offset of the first state column in a row."""
    used_bytes_t: Int64s
    """Length of a table's row."""
    narrow_t: Int64s
    """Whether weights or states have 16 bits; the rest is of use only then."""
    weight_kinds_t: Int64s
    state_kinds_t: Int64s
    """Of the states that keep a number per weight, ``rows.narrow``."""
    num_states_t: Int64s
    """How many numbers these have."""
    singles_t: Int64s
    """Byte offset of the states behind them, which keep a float32 each,"""
    num_singles_t: Int64s
    """and how many they are."""
    by_chance_t: Int64s
    """Whether rounding is stochastic."""
    keys_t: Int64s
    """Of the noise."""
    gradient_bytes: int
    """Where the room of ``update_narrow`` begins in a thread's room."""
    room_numbers: int
    """How many floats it begins with; behind them is the room of 16-bit numbers."""


@device
def rules_pointers(rules: Rules) -> Rules:
    """The rules as the loops of kernels take them, see ``machine.pointer``."""
    return Rules(
        pointer(rules.rules_t),
        pointer(rules.hypers_t),
        pointer(rules.max_norms_t),
        pointer(rules.states_t),
        pointer(rules.used_bytes_t),
        pointer(rules.narrow_t),
        pointer(rules.weight_kinds_t),
        pointer(rules.state_kinds_t),
        pointer(rules.num_states_t),
        pointer(rules.singles_t),
        pointer(rules.num_singles_t),
        pointer(rules.by_chance_t),
        pointer(rules.keys_t),
        rules.gradient_bytes,
        rules.room_numbers,
    )


@seldom
def update_narrow(
    rules: Rules, table: int, row: int, gradient: int, dim: int, row_id: int, step: int, room: int
) -> None:
    """Change one row by its table's rule, in float32, and round what has 16 bits."""
    shorts, wide_states = room + 4 * rules.room_numbers, room + 4 * whole(dim)
    weight_kind, state_kind, num_states = (
        rules.weight_kinds_t[table],
        rules.state_kinds_t[table],
        rules.num_states_t[table],
    )
    weights, states, stored = row, row + rules.states_t[table], row + rules.states_t[table]
    if weight_kind != SINGLE:
        widen_row(row, weight_kind, dim, shorts, room)
        weights = room
    if state_kind != SINGLE:
        widen_row(stored, state_kind, num_states, shorts, wide_states)
        states = wide_states
        put_bytes(states + 4 * num_states, row + rules.singles_t[table], 4 * rules.num_singles_t[table])
    apply(rules.rules_t[table], weights, states, gradient, dim, rules.hypers_t[table])
    if rules.max_norms_t[table] > 0:
        limit_norm(weights, rules.max_norms_t[table], dim)
    by_chance = rules.by_chance_t[table] != 0
    if by_chance:
        noise(shorts, dim + (num_states if state_kind != SINGLE else 0), row_id, step, rules.keys_t[table])
    if state_kind != SINGLE:  # before the weights, whose rounding uses up noise behind theirs
        narrow_row(stored, state_kind, num_states, shorts + 2 * dim, states, by_chance)
        put_bytes(row + rules.singles_t[table], states + 4 * num_states, 4 * rules.num_singles_t[table])
    if weight_kind != SINGLE:
        narrow_row(row, weight_kind, dim, shorts, weights, by_chance)
