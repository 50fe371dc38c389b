"""What the kernels of forward and backward know of a batch: ``Batch``, made from a SlotPlan and the matrices of its features.

Legend: N positions, F features, B samples, U distinct pairs, T tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cuda.host.compiled import device
from cuda.host.machine import LINE_BYTES, pointer
from cuda.plan import NONE, Float32s, Int32s, Int64s, Matrix, SlotPlan

PAST_CACHES_BYTES = 8 << 20
ADDRESS, STRIDE_BYTES, LINES, DIM = range(4)
NO_WEIGHTS: Float32s = np.empty(0, np.float32)


class Batch(NamedTuple):
    """Arrays outside kernels, pointers in their loops."""

    num_samples: int
    weighted: bool
    past_caches: bool
    """Whether single rows are written straight to memory, see ``far_larger_than_caches``."""
    dims_f: Int64s
    kinds_f: Int64s
    """What the weights of each feature's table are, ``rows.narrow``."""
    poolings_f: Int64s
    starts_f: Int64s
    addresses_f: Int64s
    """Of each feature's matrix; 0 where it has none."""
    strides_f: Int64s
    """Bytes from one line of a feature's matrix to the next."""
    offsets_fb: Int64s
    """[F * (B + 1)], flat: see ``offset``."""
    inverse_n: Int32s
    slots_u: Int32s
    weights_n: Float32s
    """Empty where every weight is one."""


@device
def batch_pointers(batch: Batch) -> Batch:
    """The batch as the loops of kernels take it, see ``machine.pointer``."""
    return Batch(
        batch.num_samples,
        batch.weighted,
        batch.past_caches,
        pointer(batch.dims_f),
        pointer(batch.kinds_f),
        pointer(batch.poolings_f),
        pointer(batch.starts_f),
        pointer(batch.addresses_f),
        pointer(batch.strides_f),
        pointer(batch.offsets_fb),
        pointer(batch.inverse_n),
        pointer(batch.slots_u),
        pointer(batch.weights_n),
    )


@device
def offset(batch: Batch, f: int, b: int) -> Any:
    """Where bag b of feature f starts."""
    return batch.offsets_fb[f * (batch.num_samples + 1) + b]


def plain(array: Any, dtype: Any) -> Any:
    """The array as kernels take it: C-contiguous, aligned, writable. Anything else is copied, or each kind would compile anew.

    Another dtype is our own bug.
    """
    assert array.dtype == dtype, f"an array of {array.dtype}, need {np.dtype(dtype)}"
    return array if array.flags.carray else np.array(array, order="C")


def describe(plan: SlotPlan, matrices_f: Sequence[Matrix | None], kinds_t: Int64s) -> Batch:
    """Lay a plan and the matrices of its features out for kernels. The matrices' owners stay the caller's business.

    ``kinds_t``: what the weights of each table are.
    """
    batch, features = plan.batch, plan.batch.features
    shapes_f4 = _shapes(matrices_f)
    check_shapes(plan, shapes_f4)
    return Batch(
        num_samples=batch.num_samples,
        weighted=batch.weights_n is not None,
        past_caches=far_larger_than_caches(shapes_f4),
        dims_f=features.dims_f.astype(np.int64),
        kinds_f=kinds_t[features.tables_f],
        poolings_f=features.poolings_f.astype(np.int64),
        starts_f=plain(batch.feature_start_f, np.int64),
        addresses_f=shapes_f4[:, ADDRESS].copy(),
        strides_f=shapes_f4[:, STRIDE_BYTES].copy(),
        offsets_fb=plain(batch.offsets_fb, np.int64).reshape(-1),
        inverse_n=plain(plan.unique.inverse_n, np.int32),
        slots_u=plain(plan.slots_u, np.int32),
        weights_n=NO_WEIGHTS if batch.weights_n is None else plain(batch.weights_n, np.float32),
    )


def _shapes(matrices_f: Sequence[Matrix | None]) -> Int64s:
    """[F, 4] address, bytes from line to line, lines, dim; zeros where there is no matrix."""
    numbers: list[int] = []
    for m in matrices_f:
        numbers += (m.address, 4 * m.row_stride, m.rows, m.dim) if m is not None else (0, 0, 0, 0)
    return np.array(numbers, np.int64).reshape(-1, 4)


def far_larger_than_caches(shapes_f4: Int64s) -> bool:
    """Whether matrices are too large to be still in a cache when they are read, and lie so that whole lines can be written.

    Such lines are better written without being read first: measured, 13.6 MB that are gathered and then read once take 0.3 ms less
    of 1.0 ms.
    """
    if 4 * int(shapes_f4[:, LINES] @ shapes_f4[:, DIM]) < PAST_CACHES_BYTES:
        return False
    address, stride_bytes, _, dim = np.bitwise_or.reduce(shapes_f4, axis=0).tolist()  # a low bit of one is one of all
    return bool((address | stride_bytes | 4 * dim) % LINE_BYTES == 0)


def check_shapes(plan: SlotPlan, shapes_f4: Int64s) -> None:
    """Assert that each matrix has the shape its feature asks for: kernels trust addresses."""
    batch, features = plan.batch, plan.batch.features
    assert len(shapes_f4) == len(features.names), f"{len(shapes_f4)} matrices for {len(features.names)} features"
    lines_f = np.where(features.poolings_f == NONE, np.diff(batch.feature_start_f), batch.num_samples)
    fits_f = (shapes_f4[:, LINES] == lines_f) & (shapes_f4[:, DIM] == features.dims_f)
    for f in np.flatnonzero(~fits_f).tolist():
        found, wanted = tuple(shapes_f4[f, LINES:].tolist()), (int(lines_f[f]), int(features.dims_f[f]))
        assert found[1] == 0, f"{features.names[f]}: a matrix {found}, need {wanted}"
