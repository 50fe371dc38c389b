"""Eight binary16 numbers at a time by the processor's own conversion, where it has one (F16C). Not NaN: see ``half``.

Both ways the processor rounds as the codec says, ties to even, subnormals included; only what it makes of a NaN differs, so
the callers redo by integer arithmetic whatever holds one.
"""

from __future__ import annotations

from typing import Any, Final

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

LANES: Final = 8

_INT8, _INT64 = ir.IntType(8), ir.IntType(64)
_SINGLES, _HALVES = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.HalfType(), LANES)


def _processor_converts() -> bool:
    """Whether compiled code may use F16C: the processor has it and Numba was not told to compile for another one."""
    features, name = getattr(config, "CPU_FEATURES", None), getattr(config, "CPU_NAME", None)
    if features is None:
        return name in (None, "host") and bool(llvm.get_host_cpu_features().get("f16c", False))
    return "+f16c" in features.split(",")


PROCESSOR_CONVERTS: Final = _processor_converts()


def _load(builder: Any, address: Any, vector: Any, align: int) -> Any:
    loaded = builder.load(builder.inttoptr(address, vector.as_pointer()))
    loaded.align = align
    return loaded


def _any_nan(builder: Any, singles: Any) -> Any:
    bits = builder.bitcast(builder.fcmp_unordered("uno", singles, singles), _INT8)
    return builder.zext(bits, _INT64)


def _to_halves(_context: Any, _singles_at: Any, _halves_at: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        singles = _load(builder, args[0], _SINGLES, 4)
        halves = builder.fptrunc(singles, _HALVES)
        builder.store(halves, builder.inttoptr(args[1], _HALVES.as_pointer()), align=2)
        return _any_nan(builder, singles)

    return types.int64(types.int64, types.int64), build


def _to_singles(_context: Any, _halves_at: Any, _singles_at: Any) -> Any:
    def build(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        singles = builder.fpext(_load(builder, args[0], _HALVES, 2), _SINGLES)
        builder.store(singles, builder.inttoptr(args[1], _SINGLES.as_pointer()), align=4)
        return _any_nan(builder, singles)

    return types.int64(types.int64, types.int64), build


to_halves: Any = intrinsic(_to_halves)
"""Convert the 8 float32 at an address to 8 halves at another. Returns 0 unless one of them is a NaN."""
to_singles: Any = intrinsic(_to_singles)
"""Convert the 8 halves at an address to 8 float32 at another. Returns 0 unless one of them is a NaN."""
