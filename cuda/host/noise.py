"""The random bits of stochastic rounding: Philox4x32-10, a function of (table, id, step, column) that keeps no state.

Block c of a row's step gives the bits of its numbers 8 * c .. 8 * c + 7, 16 each, in the order in which its four words lie in
memory. The counter is (low half of id, high half of id, low half of step, c + (rest of step << 16)); the key is the table's key,
``rows.initial.table_key``, low half first. So the bits depend on no slot, thread or batch, and any device can make them.

The generator: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011), figure 2 and section 5.
"""

from __future__ import annotations

from typing import Any, Final

from cuda.host.numba_types import intrinsic, ir, llvm_loop, types

ROUNDS: Final = 10
MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
WEYL: Final = (0x9E3779B9, 0xBB67AE85)
BLOCKS: Final = 8
"""Blocks made at a time: ``noise`` writes 128 bytes at a time."""
NUMBERS: Final = 8
"""Numbers that a block has bits for."""

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_WORDS, _LONGS = ir.VectorType(_INT32, BLOCKS), ir.VectorType(_INT64, BLOCKS)


def _all(value: int, vector: Any = _WORDS) -> Any:
    return ir.Constant(vector, [value] * BLOCKS)


def _everywhere(builder: Any, scalar: Any) -> Any:
    first = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), scalar, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, ir.Constant(_WORDS, ir.Undefined), _all(0))


def _halves(builder: Any, word: Any) -> tuple[Any, Any]:
    """The low and the high 32 bits of an int64."""
    high = builder.lshr(word, ir.Constant(_INT64, 32))
    return builder.trunc(word, _INT32), builder.trunc(high, _INT32)


def _multiply(builder: Any, words: Any, multiplier: int) -> tuple[Any, Any]:
    """(high, low) halves of the products."""
    product = builder.mul(builder.zext(words, _LONGS), _all(multiplier, _LONGS))
    high = builder.lshr(product, _all(32, _LONGS))
    return builder.trunc(high, _WORDS), builder.trunc(product, _WORDS)


def _philox(builder: Any, counter: list[Any], key: tuple[Any, Any]) -> list[Any]:
    keys = list(key)
    for _ in range(ROUNDS):
        high_0, low_0 = _multiply(builder, counter[0], MULTIPLIERS[0])
        high_1, low_1 = _multiply(builder, counter[2], MULTIPLIERS[1])
        counter = [
            builder.xor(builder.xor(high_1, counter[1]), _everywhere(builder, keys[0])),
            low_1,
            builder.xor(builder.xor(high_0, counter[3]), _everywhere(builder, keys[1])),
            low_0,
        ]
        keys = [builder.add(word, ir.Constant(_INT32, step)) for word, step in zip(keys, WEYL, strict=True)]
    return counter


def _by_block(builder: Any, words: list[Any]) -> Any:
    """The four words of each block one behind the other."""
    pairs = [ir.Constant(ir.VectorType(_INT32, 2 * BLOCKS), list(range(2 * BLOCKS)))] * 2
    front, back = (builder.shuffle_vector(*words[2 * half : 2 * half + 2], pairs[half]) for half in range(2))
    places = [word * BLOCKS + block for block in range(BLOCKS) for word in range(4)]
    return builder.shuffle_vector(front, back, ir.Constant(ir.VectorType(_INT32, 4 * BLOCKS), places))


@intrinsic
def noise(typingctx: Any, target: Any, count: Any, row_id: Any, step: Any, key: Any) -> Any:
    """Write 16 random bits for each of ``count`` numbers of a row to ``target``, and some behind them up to a multiple of 128 bytes."""
    del typingctx, target, count, row_id, step, key

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del signature
        ids, keys = _halves(builder, args[2]), _halves(builder, args[4])
        step_low, step_high = _halves(builder, args[3])
        above = builder.shl(step_high, ir.Constant(_INT32, 16))
        lanes = ir.Constant(_WORDS, list(range(BLOCKS)))
        end = builder.udiv(builder.add(args[1], ir.Constant(_INT64, NUMBERS - 1)), ir.Constant(_INT64, NUMBERS))
        with llvm_loop(builder, ir.Constant(_INT64, 0), end, BLOCKS) as block:
            last = builder.add(_everywhere(builder, builder.add(builder.trunc(block, _INT32), above)), lanes)
            counter = [*(_everywhere(builder, half) for half in (*ids, step_low)), last]
            words = _by_block(builder, _philox(builder, counter, keys))
            address = builder.add(args[0], builder.mul(block, ir.Constant(_INT64, 2 * NUMBERS)))
            builder.store(words, builder.inttoptr(address, words.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64), codegen
