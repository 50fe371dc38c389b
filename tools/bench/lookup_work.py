"""The work that both sides of the lookup benchmark do: shapes, ids, gradient. Each side makes it in its own process, from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

TABLES, ROWS, DIM, BATCH = 26, 100_000, 64, 2048
ZIPF_EXPONENT = 1.2
LR, EPS = 0.01, 1e-8
CHECKED_ROWS = 64


@dataclass(frozen=True, slots=True)
class Work:
    """``steps_sn`` [steps, TABLES * BATCH] raw ids, table by table, one id per bag; ``gradient_bd`` [BATCH, TABLES * DIM]."""

    steps_sn: npt.NDArray[np.int64]
    gradient_bd: npt.NDArray[np.float32]


def make_work(distribution: str, steps: int, seed: int = 1) -> Work:
    """``distribution``: ``zipf`` (exponent 1.2 over a random order of each table's ids) or ``uniform``."""
    random = np.random.default_rng(seed)
    shape = (steps, TABLES, BATCH)
    if distribution == "uniform":
        ids = random.integers(0, ROWS, shape)
    else:
        weights = np.arange(1, ROWS + 1) ** -ZIPF_EXPONENT
        ranks = np.searchsorted(np.cumsum(weights / weights.sum()), random.random(shape))
        orders = np.stack([random.permutation(ROWS) for _ in range(TABLES)])
        ids = orders[np.arange(TABLES)[None, :, None], np.minimum(ranks, ROWS - 1)]
    gradient_bd = random.standard_normal((BATCH, TABLES * DIM)).astype(np.float32)
    return Work(np.ascontiguousarray(ids.reshape(steps, -1), np.int64), gradient_bd)


def checked_ids(work: Work) -> npt.NDArray[np.int64]:
    """Ids of the first table whose rows are compared at the end."""
    return np.unique(work.steps_sn[:, :BATCH])[:CHECKED_ROWS]


def serve(side: Any) -> None:
    """Answer the benchmark's requests, one JSON object a line on standard input: {"run": steps} or {"rows": true}."""
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
        else:
            print(json.dumps({"rows": side.rows().tolist()}), flush=True)
