"""Random batches, tables and matrices for the backends' tests: fresh numbers each time, outputs poisoned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cuda.backend import Backend, UpdateRule
from cuda.plan import MEAN, NONE, SUM, BatchIds, BatchMeta, FeatureSet, Matrix, MetaPlace, SlotPlan
from pipeline.optim import (
    AdagradOptions,
    AdamOptions,
    LambOptions,
    LarsSgdOptions,
    OptimizerOptions,
    PartialRowwiseAdamOptions,
    PartialRowwiseLambOptions,
    RowwiseAdagradOptions,
    SgdOptions,
    layout_of,
    rule_of,
)
from pipeline.rows.layout import Column
from pipeline.rows.spec import Initializer, TableSpec
from tests.cuda.reference import Floats, Pair

Random = np.random.Generator
EXTREMES = (-(2**63), 2**63 - 1, -1, 0, 1)
ADAGRAD, SGD = RowwiseAdagradOptions(lr=0.05), SgdOptions(lr=0.3)
OPTIMIZERS: tuple[OptimizerOptions, ...] = (
    SGD,
    ADAGRAD,
    AdagradOptions(lr=0.07, eps=1e-6),
    RowwiseAdagradOptions(weight_decay=0.03, decay="l2", max_norm=1.5),
    RowwiseAdagradOptions(lr=0.2, weight_decay=0.1, decay="decoupled"),
    RowwiseAdagradOptions(lr=0.2, max_norm=0.7),
    AdamOptions(lr=0.02, weight_decay=0.05),
    AdamOptions(beta1=0.8, beta2=0.99, rowwise_bias_correction=True),
    PartialRowwiseAdamOptions(weight_decay=0.02),
    LambOptions(lr=0.03, weight_decay=0.01),
    PartialRowwiseLambOptions(lr=0.03),
    LarsSgdOptions(lr=2.0, eta=0.02, weight_decay=0.04),
)
"""Every optimizer, every option that changes a formula."""


@dataclass(frozen=True)
class Table:
    spec: TableSpec
    rule: UpdateRule


def tables(dims: Sequence[int], optimizers: Sequence[OptimizerOptions] = (ADAGRAD, SGD)) -> list[Table]:
    """Tables of these dims, under these optimizers by turns."""
    options = [optimizers[number % len(optimizers)] for number in range(len(dims))]
    return [
        Table(TableSpec(f"t{number}", layout_of(chosen, dim), Initializer(), 0), rule_of(chosen))
        for number, (dim, chosen) in enumerate(zip(dims, options, strict=True))
    ]


def ids(random: Random, count: int, spread: int) -> npt.NDArray[np.int64]:
    """Ids with duplicates, some of them extreme."""
    drawn = random.integers(-spread, spread, count).astype(np.int64) * 0x9E3779B97F4A7C1
    extreme = random.random(count) < 0.1
    drawn[extreme] = random.choice(np.array(EXTREMES, np.int64), int(extreme.sum()))
    return drawn


def batch(
    random: Random,
    dims: Sequence[int],
    feature_tables: Sequence[int],
    poolings: Sequence[int],
    num_samples: int,
    longest: int = 4,
    spread: int = 8,
    weighted: bool = False,
    empty: Sequence[int] = (),
) -> BatchIds:
    """Bags of 0 to ``longest`` ids; the features in ``empty`` have none at all."""
    count = len(feature_tables)
    lengths_fb = random.integers(0, longest + 1, (count, num_samples))
    lengths_fb[list(empty)] = 0
    starts = np.concatenate([[0], np.cumsum(lengths_fb.sum(axis=1))]).astype(np.int64)
    offsets = (
        np.concatenate([np.zeros((count, 1), np.int64), np.cumsum(lengths_fb, axis=1)], axis=1) + starts[:-1, None]
    )
    features = FeatureSet(
        names=tuple(f"f{number}" for number in range(count)),
        tables_f=np.array(feature_tables, np.int32),
        dims_f=np.array([dims[table] for table in feature_tables], np.int32),
        poolings_f=np.array(poolings, np.int32),
        num_tables=len(dims),
    )
    weights = random.standard_normal(int(starts[-1])).astype(np.float32) if weighted else None
    return BatchIds(features, num_samples, ids(random, int(starts[-1]), spread), starts, offsets, weights)


def mixed(
    random: Random, num_samples: int = 9, weighted: bool = False, longest: int = 4
) -> tuple[list[Table], BatchIds]:
    """Seven features on four tables, two of them shared; every pooling; one feature without ids."""
    dims = [4, 1024, 24, 64]
    made = batch(
        random,
        dims,
        feature_tables=[2, 0, 1, 2, 3, 0, 2],
        poolings=[SUM, MEAN, SUM, MEAN, NONE, SUM, NONE],
        num_samples=num_samples,
        longest=longest,
        weighted=weighted,
        empty=[5],
    )
    return tables(dims), made


def meta(random: Random, made: BatchIds, table: int, dtype: str, width: int, bringing: Sequence[int]) -> BatchMeta:
    """Any bytes for each position of the features ``bringing``, all of ``table``, in a column at byte 4 of a row."""
    place = MetaPlace(Column("meta", dtype, width, "meta"), 4)
    counts_f, first_f = np.diff(made.feature_start_f), np.full(len(made.features.names), -1, np.int64)
    count = 0
    for f in bringing:
        first_f[f], count = count, count + int(counts_f[f])
    values = random.integers(0, 256, (count, place.column.nbytes), dtype=np.uint8)
    return BatchMeta(table, place, values, first_f)


def one_id_a_bag(made: BatchIds, ids: Sequence[int]) -> BatchIds:
    """The same batch of one feature with exactly these ids, one a bag."""
    ends = np.arange(len(ids) + 1, dtype=np.int64)
    return BatchIds(
        made.features, len(ids), np.array(ids, np.int64), np.array([0, len(ids)], np.int64), ends.reshape(1, -1), None
    )


def floats(random: Random, rows: int, dim: int, stride: int | None = None, shift: int = 1) -> Floats:
    """Normal numbers [rows, dim] whose first lies ``shift`` floats off any alignment; between rows and around: NaN."""
    stride = dim if stride is None else stride
    memory = np.full(shift + rows * stride + 32, np.nan, np.float32)
    shift += (-memory.ctypes.data // 4) % 16
    matrix = memory[shift : shift + rows * stride].reshape(rows, stride)[:, :dim]
    matrix[:] = random.standard_normal((rows, dim))
    return matrix


def shapes(made: BatchIds) -> list[tuple[int, int]]:
    """Of each feature's matrix."""
    sizes = np.diff(made.feature_start_f).tolist()
    return [
        (size if pooling == NONE else made.num_samples, dim)
        for size, pooling, dim in zip(
            sizes, made.features.poolings_f.tolist(), made.features.dims_f.tolist(), strict=True
        )
    ]


def gradients(random: Random, made: BatchIds, without: Sequence[int] = ()) -> list[Floats | None]:
    """dL/d out of each feature, oddly aligned; None for the features in ``without``."""
    return [
        None if f in without else floats(random, rows, dim, dim + 3, shift=1 + f % 5)
        for f, (rows, dim) in enumerate(shapes(made))
    ]


def poisoned_outputs(made: BatchIds) -> list[Floats]:
    """NaN, [rows, dim] in wider memory, so that a write outside is seen."""
    return [np.full((rows, dim + 2), np.nan, np.float32)[:, :dim] for rows, dim in shapes(made)]


def matrices(arrays: Sequence[Floats | None]) -> list[Matrix | None]:
    return [None if array is None else Matrix.of(array) for array in arrays]


def fill(backend: Backend, random: Random, made: BatchIds, slots: npt.NDArray[np.int32]) -> SlotPlan:
    """Bind every distinct pair of a batch to one of ``slots`` and write it a random row of version 0."""
    unique = backend.deduplicate(made)
    chosen = slots[: unique.count].copy()
    backend.admit(chosen, unique.tables_u, unique.ids_u)
    values = random.standard_normal((unique.count, backend.row_bytes // 4)).astype(np.float32)
    dims = dict(zip(made.features.tables_f.tolist(), made.features.dims_f.tolist(), strict=True))
    for line, table in zip(values, unique.tables_u.tolist(), strict=True):
        np.abs(line[dims[table] :], out=line[dims[table] :])  # states: sums of squares
    backend.write_rows(chosen, values.view(np.uint8), np.zeros(unique.count, np.int64))
    return SlotPlan(made, unique, backend.locate(unique.tables_u, unique.ids_u))


def rows_of(backend: Backend, plan: SlotPlan) -> dict[Pair, Floats]:
    """The packed row of each distinct pair of a batch, as float32."""
    rows, _ = backend.read_rows(plan.slots_u)
    pairs = zip(plan.unique.tables_u.tolist(), plan.unique.ids_u.tolist(), strict=True)
    return dict(zip(pairs, rows.view(np.float32), strict=True))


def same_bits(left: Floats, right: Floats) -> bool:
    """Equal to the last bit: NaNs equal themselves, zeros keep their signs."""
    return left.shape == right.shape and left.tobytes() == right.tobytes()
