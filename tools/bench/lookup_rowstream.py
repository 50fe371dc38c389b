"""Our side of the lookup benchmark, in a process of its own: the Store over the host backend, all rows resident or a share of them.

A step goes the whole way: raw ids in, de-duplication, reservation (locating, pins, victims), load (nothing to do where all rows are
resident), gather, update inside the fence, release, cleaning ahead. All on one thread, whose kernels use ``threads`` threads.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from cuda.host import HostBackend, warm_up
from cuda.host.recycle import aligned_bytes
from cuda.plan import BatchIds, FeatureSet, Int64s, Matrix
from pipeline.optim import OPTIMIZERS, OptimizerOptions, layout_of, rule_of
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.store import DramTier, Store, StoreOptions
from tools.bench.lookup_work import BATCH, DIM, EPS, LR, ROWS, TABLES, checked_ids, make_work, serve
from tools.bench.step_share import Stopwatch

FILL = 10_000
"""Samples of a batch that brings rows in."""


class Rowstream:
    """One visit to the store a step, as the stages make it."""

    def __init__(
        self, distribution: str, optimizer: str, steps: int, threads: int, share: float = 1.0, start: float = 0.0
    ) -> None:
        """``share`` of the rows fit into L1; the others lie in the DRAM tier. ``start``: what weights begin as."""
        warm_up(lambda line: print(line, file=sys.stderr))
        options = options_of(optimizer)
        layout = layout_of(options, DIM)
        specs = [TableSpec(f"t{table}", layout, Initializer("uniform", start, start), 0) for table in range(TABLES)]
        self._features = FeatureSet(
            names=tuple(spec.name for spec in specs),
            tables_f=np.arange(TABLES, dtype=np.int32),
            dims_f=np.full(TABLES, DIM, np.int32),
            poolings_f=np.zeros(TABLES, np.int32),
            num_tables=TABLES,
        )
        self._backend = HostBackend(threads)
        rules = [rule_of(options)] * TABLES
        store_options = StoreOptions(l1_rows=int(share * TABLES * ROWS))
        self._store = Store(specs, rules, self._features, self._backend, DramTier(), store_options)
        self._store.open()
        self._work = make_work(distribution, steps)
        self._outs = columns_of(aligned(np.zeros((BATCH, TABLES * DIM), np.float32)))
        self._grads = columns_of(aligned(self._work.gradient_bd))
        self._step = self._filled = 0
        self._is_share = share < 1
        if self._is_share:
            self._load(specs)
        else:
            self._fill()
        self.knobs = {"threads": threads, "l1_rows": store_options.l1_rows, "policy": store_options.policy}

    def _load(self, specs: list[TableSpec]) -> None:
        """Put every row into the tier, as if it had been updated before."""
        ids_n = np.arange(ROWS, dtype=np.int64)
        for spec in specs:
            self._store.load_rows(spec.name, ids_n, spec.layout.empty(ROWS), np.ones(ROWS, np.int64))

    def _fill(self) -> None:
        """Bring every row in, without a step."""
        for start in range(0, ROWS, FILL):
            batch = self._batch(np.tile(np.arange(start, start + FILL), TABLES), FILL)
            self._filled += 1
            reservation = self._store.try_reserve(self._filled, batch, self._backend.deduplicate(batch))
            assert reservation is not None
            self._store.read_misses(reservation)
            self._store.release(reservation)
            self._store.skip_step(self._filled)

    def _batch(self, ids_n: np.ndarray[Any, np.dtype[np.int64]], samples: int) -> BatchIds:
        starts, offsets = _bags(samples)
        return BatchIds(self._features, samples, ids_n, starts, offsets, None)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            batch = self._batch(self._work.steps_sn[self._step % len(self._work.steps_sn)], BATCH)
            self._step += 1
            unique = self._backend.deduplicate(batch)
            reservation = self._store.try_reserve(self._filled + self._step, batch, unique)
            assert reservation is not None
            self._store.read_misses(reservation)
            self._store.gather(reservation, self._outs)
            self._store.update(reservation, self._grads)
            self._store.release(reservation)
            if self._is_share:
                self._store.clean_ahead()

    def phases(self, steps: int) -> dict[str, float]:
        """Where a step's time goes: milliseconds by what was called, over so many more steps."""
        watch = Stopwatch()
        calls = {
            "de-duplicate": (self._backend, "deduplicate"),
            "reserve": (self._store, "try_reserve"),
            "load": (self._store, "read_misses"),
            "gather": (self._store, "gather"),
            "update": (self._store, "update"),
            "release": (self._store, "release"),
            "clean ahead": (self._store, "clean_ahead"),
        }
        for name, (holder, call) in calls.items():
            watch.wrap(holder, call, name)
        self.run(steps)
        for holder, call in calls.values():
            delattr(holder, call)  # the twin of this object; the class's own is seen again
        return {name: 1e3 * seconds / steps for name, seconds in watch.seconds.items()}

    def rows(self) -> np.ndarray[Any, Any]:
        ids = checked_ids(self._work)
        slots = self._backend.locate(np.zeros(len(ids), np.int32), ids)
        return self._backend.read_rows(slots)[0][:, : 4 * DIM].view(np.float32)


def options_of(optimizer: str) -> OptimizerOptions:
    """With the benchmark's learning rate and eps, all else as it comes."""
    kind: type[OptimizerOptions] = OPTIMIZERS[optimizer].options
    return kind.model_validate({"lr": LR} | ({"eps": EPS} if "eps" in kind.model_fields else {}))


@cache
def _bags(samples: int) -> tuple[Int64s, Int64s]:
    """Where features and bags of one id start: part of the input, the same for each batch, as on the peer's side."""
    starts = np.arange(TABLES + 1, dtype=np.int64) * samples
    return starts, starts[:-1, None] + np.arange(samples + 1)


def columns_of(array_bd: np.ndarray[Any, np.dtype[np.float32]]) -> list[Matrix]:
    """The columns of each table."""
    return [Matrix.of(array_bd[:, table * DIM : (table + 1) * DIM]) for table in range(TABLES)]


def aligned(array_bd: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A copy that starts on a multiple of 64 bytes, as torch's tensors do."""
    copy = aligned_bytes(array_bd.nbytes).view(np.float32).reshape(array_bd.shape)
    copy[:] = array_bd
    return copy


if __name__ == "__main__":
    serve(Rowstream(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *map(float, sys.argv[5:])))
