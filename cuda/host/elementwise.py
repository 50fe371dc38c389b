"""Formulas over rows, written as arithmetic and compiled to LLVM vector code, 16 numbers at a time, under the rules of ``vector``.

A formula is a Python function of ``Operands``: it is run once, when the kernel is compiled, on values that stand for vectors, and
what it returns is emitted into a loop over the row. So each operation it writes is one rounded float32 operation, in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cuda.host.lanes import FLOAT, INT64, VECTOR, lanes_at, load_lanes, over_row, splat, store_lanes, sum_over_row
from cuda.host.numba_types import intrinsic, ir, llvm_function, types

WEIGHT = -1
"""Names the weights where a formula says what it stores; states are named by their numbers."""


class Lanes:
    """16 float32 of a row, as a formula sees them."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fsub(self.value, other.value))

    def __mul__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fmul(self.value, other.value))

    def __truediv__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fdiv(self.value, other.value))


def sqrt(lanes: Lanes) -> Lanes:
    """Each number's root, correctly rounded."""
    function = llvm_function(lanes.builder, ir.FunctionType(VECTOR, [VECTOR]), "llvm.sqrt.v16f32")
    return Lanes(lanes.builder, lanes.builder.call(function, [lanes.value]))


@dataclass(frozen=True, slots=True)
class Operands:
    """What a formula can read at one place of a row: weights, gradient, states of a number per weight, and numbers for all of it.

    Behind the end of a row everything is zero but what ``hyper``, ``a`` and ``b`` give.
    """

    builder: Any
    args: Any
    start: Any
    mask: Any

    @property
    def weight(self) -> Lanes:
        return self._row(self.args[0])

    @property
    def gradient(self) -> Lanes:
        return self._row(self.args[2])

    def state(self, number: int) -> Lanes:
        """State ``number`` of those that keep a number per weight; they lie one behind the other."""
        return self._row(self.state_address(number))

    def state_address(self, number: int) -> Any:
        offset = self.builder.mul(self.args[6], ir.Constant(INT64, 4 * number))
        return self.builder.add(self.args[1], offset)

    def hyper(self, number: int) -> Lanes:
        """Hyper-parameter ``number``, everywhere."""
        address = self.builder.add(self.args[3], ir.Constant(INT64, 4 * number))
        value = self.builder.load(self.builder.inttoptr(address, FLOAT.as_pointer()), align=4)
        return Lanes(self.builder, splat(self.builder, value))

    @property
    def a(self) -> Lanes:
        """The first number that the caller gave for this row, everywhere."""
        return Lanes(self.builder, splat(self.builder, self.args[4]))

    @property
    def b(self) -> Lanes:
        """The second."""
        return Lanes(self.builder, splat(self.builder, self.args[5]))

    def _row(self, address: Any) -> Lanes:
        return Lanes(self.builder, load_lanes(self.builder, lanes_at(self.builder, address, self.start), self.mask))


_ARGUMENTS = (*[types.int64] * 4, types.float32, types.float32, types.int64)


def change(formula: Callable[[Operands], Mapping[int, Lanes]]) -> Any:
    """A device function ``(row, state, gradient, hyper, a, b, dim)`` that stores what the formula returns: by WEIGHT, or a state."""

    def emit(builder: Any, args: Any, start: Any, mask: Any | None) -> None:
        operands = Operands(builder, args, start, mask)
        for name, lanes in formula(operands).items():
            address = args[0] if name == WEIGHT else operands.state_address(name)
            store_lanes(builder, lanes.value, lanes_at(builder, address, start), mask)

    @intrinsic
    def changed(typingctx: Any, row: Any, state: Any, gradient: Any, hyper: Any, a: Any, b: Any, dim: Any) -> Any:
        del typingctx, row, state, gradient, hyper, a, b, dim

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            del signature
            over_row(builder, args[6], lambda start, mask: emit(builder, args, start, mask))
            return context.get_dummy_value()

        return types.void(*_ARGUMENTS), codegen

    return changed


def total(formula: Callable[[Operands], Lanes]) -> Any:
    """A device function of the same arguments: the formula's sum over the row, in the order of ``vector.dot``.

    Where all operands are zero the formula must be.
    """

    @intrinsic
    def totalled(typingctx: Any, row: Any, state: Any, gradient: Any, hyper: Any, a: Any, b: Any, dim: Any) -> Any:
        del typingctx, row, state, gradient, hyper, a, b, dim

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            del context, signature
            return sum_over_row(
                builder, args[6], lambda start, mask: formula(Operands(builder, args, start, mask)).value
            )

        return types.float32(*_ARGUMENTS), codegen

    return totalled
