"""Initial rows: a pure, integer-exact function of (seed, table name, id, column). Nothing is drawn, nothing is stored.

The formula, all words uint64 and mod 2**64 (``mix`` is the finaliser of SplitMix64; GAMMA is 0x9E3779B97F4A7C15):

    mix(z)         z ^= z >> 30; z *= 0xBF58476D1CE4E5B9; z ^= z >> 27; z *= 0x94D049BB133111EB; z ^= z >> 31
    key(table)     XXH64(name in UTF-8, seed mod 2**64)
    key(row)       mix(key(table) ^ mix(id + GAMMA))                        id as two's complement
    word(row, k)   mix(key(row) + (k + 1) * GAMMA)                          k = 0, 1, ...

    uniform        u = float32(word(row, column) >> 40) * 2**-24            24 bits: exact, in [0, 1)
                   weight = base + scale * u                                base = low, scale = high - low
    normal         s = the sum of the twelve 16-bit parts of words 3 * column, 3 * column + 1, 3 * column + 2
                   z = float32(s - 393210) * 2**-16                         exact; mean 0, variance 1 - 2**-32, |z| < 6
                   weight = base + scale * z                                base = mean, scale = std
    zeros          weight = 0

``low``, ``high``, ``mean`` and ``std`` are first rounded to float32; high - low, scale * u and the sum are each
rounded to float32 once, to nearest even, and never fused. So every machine, language and device gets the same bits,
whatever the order of the ids. A normal weight is a sum of twelve uniform numbers (Irwin-Hall), which needs no
logarithm and therefore no library's rounding; its tails are a little lighter (0.22 % beyond three deviations, not 0.27).

Weights of 16 bits are that, rounded to nearest, ties to even (``narrow``): not by chance, which needs a step.

Legend: n ids; d dim.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from pipeline.rows.arrays import read_only_ids
from pipeline.rows.errors import BadInitializer
from pipeline.rows.layout import NARROW, stored_dtype
from pipeline.rows.narrow import KINDS as STORED
from pipeline.rows.narrow import narrow, round_row
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.rows.xxh64 import hash_bytes

ZEROS: Final = 0
UNIFORM: Final = 1
NORMAL: Final = 2
KINDS: Final = {"zeros": ZEROS, "uniform": UNIFORM, "normal": NORMAL}

GAMMA = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
LOW_16 = np.uint64(0xFFFF)
HALF_SUM = np.int64(393210)
PER_2_24 = np.float32(2.0**-24)
PER_2_16 = np.float32(2.0**-16)


@njit(nogil=True, cache=True)
def mix(word):  # type: ignore[no-untyped-def]
    """uint64 -> uint64, a bijection."""
    word ^= word >> np.uint64(30)
    word *= MIX_1
    word ^= word >> np.uint64(27)
    word *= MIX_2
    return word ^ (word >> np.uint64(31))


@njit(nogil=True, cache=True)
def row_key(table_key, row_id):  # type: ignore[no-untyped-def]
    """uint64 key of a row, from the uint64 key of its table and its int64 id."""
    return mix(table_key ^ mix(np.uint64(row_id) + GAMMA))


@njit(nogil=True, cache=True)
def _sum_16(word):  # type: ignore[no-untyped-def]
    return np.int64(
        (word & LOW_16)
        + ((word >> np.uint64(16)) & LOW_16)
        + ((word >> np.uint64(32)) & LOW_16)
        + (word >> np.uint64(48))
    )


@njit(nogil=True, cache=True)
def fill_row(table_key, row_id, kind, base, scale, stored, weights_d):  # type: ignore[no-untyped-def]
    """Write one row's initial weights to ``weights_d`` float32 [d]. For the other arguments see ``rule``."""
    _fill_row(table_key, row_id, kind, base, scale, weights_d)
    round_row(weights_d, stored)


@njit(nogil=True, cache=True)
def _fill_row(table_key, row_id, kind, base, scale, weights_d):  # type: ignore[no-untyped-def]
    if kind == ZEROS:
        weights_d[:] = np.float32(0.0)
        return
    key = row_key(table_key, row_id)
    if kind == UNIFORM:
        for d in range(weights_d.shape[0]):
            word = mix(key + np.uint64(d + 1) * GAMMA)
            weights_d[d] = base + scale * (np.float32(np.int64(word >> np.uint64(40))) * PER_2_24)
        return
    for d in range(weights_d.shape[0]):
        first = np.uint64(3 * d + 1)
        total = _sum_16(mix(key + first * GAMMA))
        total += _sum_16(mix(key + (first + np.uint64(1)) * GAMMA))
        total += _sum_16(mix(key + (first + np.uint64(2)) * GAMMA))
        weights_d[d] = base + scale * (np.float32(total - HALF_SUM) * PER_2_16)


@njit(nogil=True, cache=True)
def fill_rows(table_key, ids_n, kind, base, scale, stored, dim, out_nw):  # type: ignore[no-untyped-def]
    """``fill_row`` for each id, into the first ``dim`` of each row of ``out_nw`` float32 [n, w]."""
    for n in range(ids_n.shape[0]):
        fill_row(table_key, ids_n[n], kind, base, scale, stored, out_nw[n, :dim])


def table_key(seed: int, name: str) -> np.uint64:
    """The key of a table: XXH64 of its name with ``seed`` mod 2**64."""
    return np.uint64(hash_bytes(name.encode(), seed))


def rule(spec: TableSpec) -> tuple[int, np.float32, np.float32, int]:
    """(kind, base, scale, what weights are stored as) as the kernels take them.

    Raises BadInitializer for what is not finite in float32.
    """
    return *_numbers(spec.initializer), STORED[spec.layout.weight_dtype]


def _numbers(initializer: Initializer) -> tuple[int, np.float32, np.float32]:
    if initializer.kind == "zeros":
        return ZEROS, np.float32(0), np.float32(0)
    names = ("low", "high") if initializer.kind == "uniform" else ("mean", "std")
    with np.errstate(over="ignore"):
        base, second = (np.float32(getattr(initializer, name)) for name in names)
        scale = second - base if initializer.kind == "uniform" else second
    if not (np.isfinite(base) and np.isfinite(second) and np.isfinite(scale)):
        raise BadInitializer(initializer.kind, names, (float(base), float(second)))
    return KINDS[initializer.kind], base, scale


def initial_weights(spec: TableSpec, ids_n: Any) -> npt.NDArray[np.float32]:
    """The initial weights of rows, float32 [n, dim]. Needs no lock and may run on any thread; duplicates allowed."""
    ids_n = read_only_ids(ids_n)
    weights_nd = np.empty((ids_n.shape[0], spec.dim), dtype=np.float32)
    fill_rows(table_key(spec.seed, spec.name), ids_n, *rule(spec), spec.dim, weights_nd)
    return weights_nd


def initial_rows(spec: TableSpec, ids_n: Any) -> npt.NDArray[np.uint8]:
    """The initial packed rows, uint8 [n, row_bytes]: initial weights, every other column and the padding zero."""
    ids_n = read_only_ids(ids_n)
    rows_nb, dtype = spec.layout.empty(ids_n.shape[0]), spec.layout.weight_dtype
    if dtype in NARROW:
        weights_nd = spec.layout.view(rows_nb, spec.layout.columns[0].name)
        weights_nd[:] = narrow(initial_weights(spec, ids_n), dtype).view(stored_dtype(dtype))
    else:
        fill_rows(table_key(spec.seed, spec.name), ids_n, *rule(spec), spec.dim, rows_nb.view(np.float32))
    return rows_nb
