"""The work that both sides of the lookup benchmark do: shapes, ids, gradient. Each side makes it in its own process, from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.mixing import key_of
from stages.sources import synthetic_kernels
from stages.sources.reuse import reuse_table

TABLES, ROWS, DIM, BATCH = 26, 100_000, 64, 2048
LR, EPS = 0.01, 1e-8
CHECKED_ROWS = 64


@dataclass(frozen=True, slots=True)
class Work:
    """``steps_sn`` [steps, TABLES * BATCH] raw ids, table by table, one id per bag; ``gradient_bd`` [BATCH, TABLES * DIM]."""

    steps_sn: npt.NDArray[np.int64]
    gradient_bd: npt.NDArray[np.float32]


def make_work(distribution: str, steps: int, seed: int = 1) -> Work:
    """``distribution``: ``uniform``, ``zipf EXPONENT`` or ``reuse YEAR``. The last two say how often ids come, whichever they
    are: each table has its own random order of them.
    """
    random = np.random.default_rng(seed)
    shape = (steps, TABLES, BATCH)
    kind, _, argument = distribution.partition(" ")
    if kind == "uniform":
        ids = random.integers(0, ROWS, shape)
    else:
        ranks = _zipf(float(argument), random, shape) if kind == "zipf" else _reuse(argument, seed, shape)
        orders = np.stack([random.permutation(ROWS) for _ in range(TABLES)])
        ids = orders[np.arange(TABLES)[None, :, None], ranks]
    return Work(np.ascontiguousarray(ids.reshape(steps, -1), np.int64), make_gradient())


def make_gradient() -> npt.NDArray[np.float32]:
    """The same whatever the ids."""
    return np.random.default_rng(0).standard_normal((BATCH, TABLES * DIM), dtype=np.float32)


def _zipf(exponent: float, random: np.random.Generator, shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    weights = np.arange(1, ROWS + 1) ** -exponent
    return np.minimum(np.searchsorted(np.cumsum(weights / weights.sum()), random.random(shape)), ROWS - 1)


def _reuse(year: str, seed: int, shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """As the source ``synthetic`` draws them where no period is named: the histogram holds over the accesses that need all ids."""
    steps, tables, batch = shape
    table = reuse_table(year, ROWS, None)
    bins = np.ascontiguousarray(np.stack([table.accesses_i, table.used_i, table.universe_i]))
    offsets_b = np.arange(steps * batch + 1, dtype=np.int64)
    drawn_tn = np.empty((tables, steps * batch), np.int64)
    for number, ids_n in enumerate(drawn_tn):
        synthetic_kernels.reuse_ids(key_of(seed, number), key_of(0, number), 0, 1, bins, offsets_b, ids_n)
    return drawn_tn.reshape(tables, steps, batch).transpose(1, 0, 2)


def checked_ids(work: Work) -> npt.NDArray[np.int64]:
    """Ids of the first table whose rows are compared at the end."""
    return np.unique(work.steps_sn[:, :BATCH])[:CHECKED_ROWS]


def serve(side: Any) -> None:
    """Answer the benchmark's requests, one JSON object a line on standard input: {"run": steps}, {"rows": true}, or of our side
    {"phases": steps}.
    """
    import json
    import sys
    import time

    print(json.dumps({"ready": side.knobs}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            started = time.perf_counter()
            side.run(int(request["run"]))
            print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
        elif "phases" in request:
            print(json.dumps({"phases": side.phases(int(request["phases"]))}), flush=True)
        else:
            print(json.dumps({"rows": side.rows().tolist()}), flush=True)
