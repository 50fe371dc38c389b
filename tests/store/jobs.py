"""Small tables, features and random batches for tests of the store."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cuda.backend import UpdateRule
from cuda.host import HostBackend
from cuda.plan import NONE, SUM, BatchIds, FeatureSet, Matrix
from pipeline.files import Files
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.store import DramTier, DynamicTables, Reservation, Store, StoreOptions, Tier

DIMS = (4, 8, 12)
TABLE_NAMES = ("users", "items", "words")
SPECS = tuple(
    TableSpec(name, RowLayout((Column("weight", "float32", dim, "weight"),)), Initializer(), 11)
    for name, dim in zip(TABLE_NAMES, DIMS, strict=True)
)
RULES = (UpdateRule("sgd", (1.0,)),) * len(SPECS)
EXTREME_IDS = np.array([-(2**63), -1, 2**63 - 1], dtype=np.int64)
Float32s = npt.NDArray[np.float32]


def features(tables: tuple[int, ...] = (0, 1, 0, 2), poolings: tuple[int, ...] = (SUM, NONE, NONE, SUM)) -> FeatureSet:
    """Features over ``SPECS``; two of them share a table."""
    return FeatureSet(
        names=tuple(f"f{f}" for f in range(len(tables))),
        tables_f=np.array(tables, dtype=np.int32),
        dims_f=np.array([DIMS[table] for table in tables], dtype=np.int32),
        poolings_f=np.array(poolings, dtype=np.int32),
        num_tables=len(SPECS),
    )


FEATURES = features()


def batch_of(bags_f: list[list[list[int]]], feature_set: FeatureSet = FEATURES) -> BatchIds:
    """A batch from bags of ids: ``bags_f[feature][sample]``."""
    ids: list[int] = []
    starts, offsets = [0], []
    for bags in bags_f:
        own = [len(ids)]
        for bag in bags:
            ids.extend(bag)
            own.append(len(ids))
        offsets.append(own)
        starts.append(len(ids))
    return BatchIds(
        features=feature_set,
        num_samples=len(bags_f[0]),
        ids_n=np.array(ids, dtype=np.int64),
        feature_start_f=np.array(starts, dtype=np.int64),
        offsets_fb=np.array(offsets, dtype=np.int64),
        weights_n=None,
    )


def random_batch(random: np.random.Generator, num_ids: int, samples: int) -> BatchIds:
    """Bags of 0 to 3 ids, small ones more often than large ones, extremes among them."""

    def bag() -> list[int]:
        ids = (num_ids * random.random(random.integers(0, 4)) ** 2).astype(np.int64)
        return [int(EXTREME_IDS[i]) if i < len(EXTREME_IDS) else int(i) for i in ids]

    return batch_of([[bag() for _ in range(samples)] for _ in FEATURES.names])


def ids_of(batch: BatchIds, feature: int) -> list[int]:
    """The ids of one feature, repeated as they are."""
    ids: list[int] = batch.ids_n[batch.feature_start_f[feature] : batch.feature_start_f[feature + 1]].tolist()
    return ids


def empty_outs(batch: BatchIds) -> list[Float32s]:
    """Poisoned outputs of a lookup, one per feature."""
    outs = []
    for f, pooling in enumerate(batch.features.poolings_f):
        own = int(batch.feature_start_f[f + 1] - batch.feature_start_f[f])
        rows = own if pooling == NONE else batch.num_samples
        outs.append(np.full((rows, int(batch.features.dims_f[f])), np.nan, dtype=np.float32))
    return outs


def whole_grads(random: np.random.Generator, batch: BatchIds) -> list[Float32s]:
    """Small whole numbers, so that sums are exact in any order."""
    return [random.integers(-3, 4, out.shape).astype(np.float32) for out in empty_outs(batch)]


def matrices(arrays: list[Float32s]) -> list[Matrix]:
    return [Matrix.of(array) for array in arrays]


def make_store(
    tier: Tier | None = None,
    backend: Any = None,
    spill_path: str | None = None,
    files: Files | None = None,
    dynamic: DynamicTables | None = None,
    **options: Any,
) -> Store:
    """An open store over ``SPECS``; close it."""
    options = {"l1_rows": 64, "shadow_bytes": 1 << 20, "spill_bytes": 1 << 20} | options
    store = Store(
        SPECS,
        RULES,
        FEATURES,
        backend or HostBackend(1),
        tier or DramTier(),
        StoreOptions(**options),
        spill_path=spill_path,
        files=files,
        dynamic=dynamic,
    )
    store.open()
    return store


def reserve(store: Store, step: int, batch: BatchIds) -> Reservation:
    """Reserve and load, on one thread, where there is room."""
    reservation = store.try_reserve(step, batch, store.backend.deduplicate(batch))
    assert reservation is not None
    store.read_misses(reservation)
    return reservation


def train_step(store: Store, step: int, batch: BatchIds, grads: list[Float32s]) -> None:
    """One whole step on one thread."""
    reservation = reserve(store, step, batch)
    store.update(reservation, matrices(grads))
    store.release(reservation)
