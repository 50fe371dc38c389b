"""Rows with numbers of 16 bits, in plain Python: widened by numpy, changed by ``rule_reference``, rounded by comparing fractions.

What is random comes from Philox4x32-10 as its paper has it, one block of 8 numbers at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cuda.backend import UpdateRule
from pipeline.rows.initial import table_key
from pipeline.rows.spec import TableSpec
from tests.cuda.reference import Floats
from tests.cuda.rule_reference import apply_rule

WORD = 0xFFFFFFFF
Bits = npt.NDArray[np.uint16]


def philox(counter: list[int], key: list[int]) -> list[int]:
    for _ in range(10):
        left, right = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (right >> 32) ^ counter[1] ^ key[0],
            right & WORD,
            (left >> 32) ^ counter[3] ^ key[1],
            left & WORD,
        ]
        key = [(key[0] + 0x9E3779B9) & WORD, (key[1] + 0xBB67AE85) & WORD]
    return counter


def noise(spec: TableSpec, row_id: int, step: int, count: int) -> Bits:
    """16 random bits for each of a row's first ``count`` numbers."""
    key, row_id = int(table_key(spec.seed, spec.name)), row_id % 2**64
    words: list[int] = []
    for block in range(-(-count // 8)):
        counter = [row_id & WORD, row_id >> 32, step & WORD, block + ((step >> 32) << 16)]
        words += philox(counter, [key & WORD, key >> 32])
    return np.array(words, np.uint32).view(np.uint16)[:count]


def widen(bits: Bits, dtype: str) -> Floats:
    if dtype == "float16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _toward_zero(values: Floats, dtype: str) -> Bits:
    """The neighbour that is not farther from zero."""
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        bits = values.astype(np.float16).view(np.uint16)
    return (bits - (np.abs(widen(bits, dtype)) > np.abs(values))).astype(np.uint16)


def round_to(values: Floats, dtype: str, random: Bits | None) -> Bits:
    """Finite numbers, within the format's range: by chance, or where ``random`` is None to nearest."""
    low = _toward_zero(values, dtype)
    high = (low + 1).astype(np.uint16)
    near, far = (np.abs(widen(bits, dtype)).astype(np.float64) for bits in (low, high))
    share = (np.abs(values).astype(np.float64) - near) / (far - near)
    if random is not None:
        return np.where(np.floor(share * 65536) + random >= 65536, high, low).astype(np.uint16)
    return np.where((share > 0.5) | ((share == 0.5) & (low % 2 == 1)), high, low).astype(np.uint16)


def update_row(
    rule: UpdateRule, spec: TableSpec, row_b: npt.NDArray[np.uint8], gradient: Floats, row_id: int, step: int
) -> npt.NDArray[np.uint8]:
    """The packed row after the rule: every byte of it."""
    after_b = row_b.copy()
    stored = {column.name: after_b[spec.layout.offsets[column.name] :] for column in spec.layout.columns}
    widened = [_read(stored[column.name], column) for column in spec.layout.columns]
    changed = apply_rule(rule, spec, np.concatenate(widened), gradient, step)
    by_chance = rule.rounding == "stochastic"
    random = noise(spec, row_id, step, changed.shape[0]) if by_chance else None
    start = 0
    for column in spec.layout.columns:
        part = slice(start, start + column.width)
        start += column.width
        if column.dtype == "float32":
            bits: npt.NDArray[Any] = changed[part]
        else:
            bits = round_to(changed[part], column.dtype, None if random is None else random[part])
        stored[column.name][: column.nbytes] = bits.view(np.uint8)
    return after_b


def _read(bytes_b: npt.NDArray[np.uint8], column: Any) -> Floats:
    own = bytes_b[: column.nbytes].copy()
    return own.view(np.float32) if column.dtype == "float32" else widen(own.view(np.uint16), column.dtype)
