"""What the kernels of forward and backward know of a batch: ``Batch``, made from a SlotPlan and the matrices of its features.

Legend: N positions, F features, B samples, U distinct pairs, T tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cuda.host.compiled import device
from cuda.host.machine import pointer
from cuda.plan import NONE, Float32s, Int32s, Int64s, Matrix, SlotPlan

NO_WEIGHTS: Float32s = np.empty(0, np.float32)


class Batch(NamedTuple):
    """Arrays outside kernels, pointers in their loops."""

    num_samples: int
    weighted: bool
    dims_f: Int64s
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
        pointer(batch.dims_f),
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


def describe(plan: SlotPlan, matrices_f: Sequence[Matrix | None]) -> Batch:
    """Lay a plan and the matrices of its features out for kernels. The matrices' owners stay the caller's business."""
    check_matrices(plan, matrices_f)
    batch, features = plan.batch, plan.batch.features
    return Batch(
        num_samples=batch.num_samples,
        weighted=batch.weights_n is not None,
        dims_f=features.dims_f.astype(np.int64),
        poolings_f=features.poolings_f.astype(np.int64),
        starts_f=plain(batch.feature_start_f, np.int64),
        addresses_f=np.array([0 if matrix is None else matrix.address for matrix in matrices_f], np.int64),
        strides_f=np.array([0 if matrix is None else 4 * matrix.row_stride for matrix in matrices_f], np.int64),
        offsets_fb=plain(batch.offsets_fb, np.int64).reshape(-1),
        inverse_n=plain(plan.unique.inverse_n, np.int32),
        slots_u=plain(plan.slots_u, np.int32),
        weights_n=NO_WEIGHTS if batch.weights_n is None else plain(batch.weights_n, np.float32),
    )


def check_matrices(plan: SlotPlan, matrices_f: Sequence[Matrix | None]) -> None:
    """Assert that each matrix has the shape its feature asks for: kernels trust addresses."""
    batch, features = plan.batch, plan.batch.features
    sizes = np.diff(batch.feature_start_f).tolist()
    assert len(matrices_f) == len(features.names), f"{len(matrices_f)} matrices for {len(features.names)} features"
    poolings, dims = features.poolings_f.tolist(), features.dims_f.tolist()
    for name, matrix, pooling, dim, size in zip(features.names, matrices_f, poolings, dims, sizes, strict=True):
        if matrix is not None:
            wanted = (size if pooling == NONE else batch.num_samples, dim)
            assert (matrix.rows, matrix.dim) == wanted, f"{name}: a matrix {(matrix.rows, matrix.dim)}, need {wanted}"
