"""What the kernels of forward and backward know of a batch: ``Batch``, made from a SlotPlan and the matrices of its features.

Legend: N positions, F features, B samples, U distinct pairs, T tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cuda.plan import NONE, Float32s, Int32s, Int64s, Matrix, SlotPlan

NO_WEIGHTS: Float32s = np.empty(0, np.float32)
DIM, POOLING, START, ADDRESS, STRIDE_BYTES = range(5)
"""Columns of ``Batch.features_fk``; ADDRESS is 0 where a feature has no matrix."""


class Batch(NamedTuple):
    features_fk: Int64s
    offsets_fb: Int64s
    inverse_n: Int32s
    slots_u: Int32s
    weights_n: Float32s
    """Empty where every weight is one."""


def plain(array: Any, dtype: Any) -> Any:
    """The array as kernels take it: C-contiguous, aligned, writable. Anything else is copied, or each kind would compile anew.

    Another dtype is our own bug.
    """
    assert array.dtype == dtype, f"an array of {array.dtype}, need {np.dtype(dtype)}"
    return array if array.flags.carray else np.array(array, order="C")


def describe(plan: SlotPlan, matrices_f: Sequence[Matrix | None]) -> Batch:
    """Lay a plan and the matrices of its features out for kernels. The matrices' owners stay the caller's business."""
    batch, features = plan.batch, plan.batch.features
    features_fk = np.empty((len(features.names), 5), np.int64)
    features_fk[:, DIM] = features.dims_f
    features_fk[:, POOLING] = features.poolings_f
    features_fk[:, START] = batch.feature_start_f[:-1]
    features_fk[:, ADDRESS] = [0 if matrix is None else matrix.address for matrix in matrices_f]
    features_fk[:, STRIDE_BYTES] = [0 if matrix is None else matrix.row_stride * 4 for matrix in matrices_f]
    check_matrices(plan, matrices_f)
    return Batch(
        features_fk=features_fk,
        offsets_fb=plain(batch.offsets_fb, np.int64),
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
