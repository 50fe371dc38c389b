"""Numba and llvmlite as untyped values: their annotations, where they have any, describe the interpreter's view of compiled code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding
import llvmlite.ir
import numba
import numba.core.caching
import numba.core.cgutils
import numba.extending

ir: Any = llvmlite.ir
llvm: Any = llvmlite.binding
types: Any = numba.types
cgutils: Any = numba.core.cgutils
caching: Any = numba.core.caching
runtime: Any = numba
"""``set_num_threads``, ``threading_layer`` and ``config``."""


def intrinsic(function: Callable[..., Any]) -> Any:
    """A function whose LLVM code is written by hand. Compiled callers leave out the first argument, the typing context."""
    return numba.extending.intrinsic(function)


@contextmanager
def llvm_loop(builder: Any, start: Any, stop: Any, step: int) -> Iterator[Any]:
    """Emit a loop over int64; its body is what is emitted inside the ``with``, which receives the index.

    LLVM is told not to unroll it: rows are short, and dozens of copies of each body keep functions from being inlined.
    """
    before, body, after = builder.block, builder.append_basic_block("row.body"), builder.append_basic_block("row.end")
    builder.cbranch(builder.icmp_signed("<", start, stop), body, after)
    builder.position_at_end(body)
    index = builder.phi(start.type)
    index.add_incoming(start, before)
    yield index
    following = builder.add(index, ir.Constant(start.type, step))
    index.add_incoming(following, builder.block)
    back = builder.cbranch(builder.icmp_signed("<", following, stop), body, after)
    back.set_metadata("llvm.loop", _not_unrolled(builder.module))
    builder.position_at_end(after)


def _not_unrolled(module: Any) -> Any:
    """A loop's name in LLVM, a node that refers to itself, with the wish attached."""
    wish = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    name = module.add_metadata([ir.Constant(ir.IntType(64), len(module.metadata))])
    name.operands = (name, wish)
    return name


def llvm_function(builder: Any, kind: Any, name: str) -> Any:
    """An LLVM intrinsic, declared in the module that is being built."""
    return cgutils.get_or_insert_function(builder.module, kind, name)
