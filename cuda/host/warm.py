"""Compile everything before the first batch, and say so when it takes time."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import llvmlite
import numba
import numpy as np

from cuda.backend import UpdateRule
from cuda.host.backend import HostBackend
from cuda.host.cache import folder_stamp
from cuda.host.compiled import KERNELS
from cuda.host.numba_types import llvm
from cuda.host.rules import RULES
from cuda.host.threads import require_safe_layer
from cuda.plan import SUM, BatchIds, BatchMeta, FeatureSet, Matrix, MetaPlace, SlotPlan
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.room import RowRoom
from pipeline.rows.spec import Initializer, TableSpec

COLD_START_S = 40
"""What compiling everything takes on two cores, about; see README."""


def warm_up(announce: Callable[[str], None]) -> float:
    """Compile every kernel, or load it from the cache on disk; returns the seconds it took.

    Announces in one line when there is nothing in the cache yet. Raises NoThreadingLayer where Numba has no safe one. Blocks; call
    it on a lane.
    """
    started = time.perf_counter()
    marker = _marker()
    is_cold = not marker.exists()
    if is_cold:
        announce(f"compiling {len(KERNELS)} kernels, about {COLD_START_S} s, once (kept in {marker.parent})")
    _run_everything()
    if is_cold:  # later ones are loaded when they are first asked for
        assert all(rule.code >= 0 for rule in RULES.values() if rule.is_kept)
    require_safe_layer()
    _touch(marker)
    return time.perf_counter() - started


def _marker() -> Path:
    """A file beside the cached kernels that stands for all of them: same sources, same versions, same processor."""
    folder = Path(KERNELS[0].stats.cache_path)
    parts = [
        folder_stamp(Path(__file__).parent),
        numba.__version__,
        llvmlite.__version__,
        platform.python_version(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
    ]
    return folder / f"kernels-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.warm"


def _touch(marker: Path) -> None:
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError:  # a cache that can no longer be written: the next start announces again, no harm
        return


def _run_everything() -> None:
    """One tiny batch through every method. Kernels take one set of types each, so this compiles all there is."""
    layout = RowLayout((Column("weight", "float32", 4, "weight"),))
    features = FeatureSet(("f",), np.zeros(1, np.int32), np.full(1, 4, np.int32), np.full(1, SUM, np.int32), 1)
    starts = np.array([0, 1], np.int64)
    batch = BatchIds(features, 1, np.array([7], np.int64), starts, starts.reshape(1, 2), None)
    backend = HostBackend(threads=1)
    backend.open([TableSpec("t", layout, Initializer("zeros"), 0)], 1)
    unique = backend.deduplicate(batch)
    slots = np.zeros(1, np.int32)
    backend.admit(slots, unique.tables_u, unique.ids_u)
    plan = SlotPlan(batch, unique, backend.locate(unique.tables_u, unique.ids_u))
    meta = BatchMeta(
        0, MetaPlace(Column("m", "uint8", 8, "meta"), 0), np.zeros((1, 8), np.uint8), np.zeros(1, np.int64)
    )
    rows_m, values = backend.last_values(batch, unique, meta)
    for few in (0, 1):  # by many threads, and by one
        backend.few = few
        backend.locate(unique.tables_u, unique.ids_u)
        backend.write_rows(slots, *backend.read_rows(slots))
        backend.write_part(slots[rows_m], 0, values)
    backend.read_rows_into(slots, np.empty((1, 16), np.uint8), np.empty((1, 0), np.uint8), np.zeros(1, np.int64))
    matrix = Matrix.of(np.zeros((1, 4), np.float32))
    backend.gather_pool(plan, [matrix])
    backend.sum_gradients(plan, [matrix])
    backend.weight_gradients(plan, [matrix])
    kept = backend.keep_weights(plan)
    backend.update(plan, [matrix], [UpdateRule("sgd", (0.0,), max_gradient=1.0)], 1)
    backend.relative_change(plan, kept)
    found = backend.find_distinct(unique.ids_u, unique.table_start_t.reshape(1, 2))
    assert found is not None
    backend.encode_distinct(*found, ["fp16"], (0, 1), RowRoom(np.empty(24, np.uint8), 0, 8, 16))
    backend.forget(slots)
    backend.close()
