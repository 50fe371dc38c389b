"""The arrays that describe one batch to a backend.

Legend: N ids of the batch, features one behind the other; F features; B samples; U distinct (table, id) pairs; T tables.
All arrays are C-contiguous numpy arrays on the host, owned by the batch and not written after they were made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.rows.layout import Column

SUM: Final = 0
MEAN: Final = 1
NONE: Final = 2
POOLINGS: Final = {"sum": SUM, "mean": MEAN, "none": NONE}

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


class MetaPlace(NamedTuple):
    """A meta column of a table, and the byte at which it starts in the table's rows."""

    column: Column
    start: int


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """What does not change from batch to batch: for each feature its table, dim and pooling. Shapes [F]."""

    names: tuple[str, ...]
    tables_f: Int32s
    dims_f: Int32s
    poolings_f: Int32s
    num_tables: int
    meta_t: tuple[tuple[MetaPlace, ...], ...] = ()
    """The meta columns of each table; empty where no table has any."""


@dataclass(frozen=True, slots=True)
class BatchMeta:
    """What a batch brings for one meta column of one table: a value for each position of some of the table's features."""

    table: int
    place: MetaPlace
    values_vb: npt.NDArray[np.uint8]
    """[V, bytes of the column] as rows keep it, feature behind feature."""
    first_f: Int64s
    """[F] where the values of each feature begin in values_vb; -1 where it brings none."""


class RowMeta(NamedTuple):
    """What a step writes into a meta column: the values of some distinct rows of a plan."""

    place: MetaPlace
    rows_m: Int64s
    """[M] positions in the plan's slots_u, rising."""
    values_mb: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class BatchIds:
    """The raw ids of one batch."""

    features: FeatureSet
    num_samples: int
    ids_n: Int64s
    """[N] every int64 is an ordinary id."""
    feature_start_f: Int64s
    """[F + 1] feature f owns positions feature_start_f[f] .. feature_start_f[f + 1]."""
    offsets_fb: Int64s
    """[F, B + 1] absolute positions: bag b of feature f is offsets_fb[f, b] .. offsets_fb[f, b + 1]."""
    weights_n: Float32s | None
    """[N] per-sample weights, or None for all ones."""
    meta: tuple[BatchMeta, ...] = ()
    """At most one for each meta column."""


@dataclass(frozen=True, slots=True)
class UniqueIds:
    """The distinct (table, id) pairs of a batch, grouped by table, inside a table in order of first occurrence."""

    ids_u: Int64s
    tables_u: Int32s
    table_start_t: Int64s
    """[T + 1]"""
    inverse_n: Int32s
    """[N] position in ids_u of each occurrence."""
    occurrence_start_u: Int64s
    """[U + 1]"""
    occurrences_n: Int32s
    """[N] the positions n of each unique pair, in (feature, position) order."""

    @property
    def count(self) -> int:
        return int(self.ids_u.shape[0])


class RowPlaces(NamedTuple):
    """Where rows lie in the host's memory, by address: packed rows, on word boundaries, and their versions, an int64 each. [M]"""

    rows_m: Int64s
    versions_m: Int64s


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """A batch whose rows are all resident."""

    batch: BatchIds
    unique: UniqueIds
    slots_u: Int32s
    """[U] the slot of each distinct pair."""


class Matrix(NamedTuple):
    """A float32 matrix somewhere in memory, rows contiguous: what a backend reads and writes without knowing who owns it.

    Whoever makes one keeps ``owner`` alive. Every step makes some, so they are as cheap as can be.
    """

    address: int
    rows: int
    dim: int
    row_stride: int
    """In floats."""
    owner: Any

    @staticmethod
    def of(array_bd: Any) -> Matrix:
        """Describe a 2-D float32 numpy array or CPU torch tensor with contiguous rows. Raises ValueError for anything else."""
        if array_bd.ndim != 2 or not _is_float32(array_bd.dtype):
            raise ValueError(f"need a 2-D float32 array, got {tuple(array_bd.shape)} of {array_bd.dtype}")
        rows, dim = array_bd.shape
        if hasattr(array_bd, "data_ptr"):
            address, strides = array_bd.data_ptr(), array_bd.stride()
        else:
            address, strides = array_bd.ctypes.data, [stride // 4 for stride in array_bd.strides]
        if rows > 0 and dim > 1 and strides[1] != 1:
            raise ValueError(f"the rows of the matrix are not contiguous: strides {strides}")
        return Matrix(address, rows, dim, strides[0], array_bd)

    def columns(self, start: int, dim: int) -> Matrix:
        """Columns ``start`` to ``start + dim`` of this matrix."""
        assert 0 <= start <= start + dim <= self.dim
        return Matrix(self.address + 4 * start, self.rows, dim, self.row_stride, self.owner)


@cache
def _is_float32(dtype: Any) -> bool:
    """Of numpy or torch, neither of which has to be loaded for it."""
    return str(dtype).removeprefix("torch.") == "float32"
