"""The job of the tier benchmarks, and our side of them: the shapes of ``lookup``, through all stages, rows in a named tier below L1.

The run begins with all rows trained: they are loaded as a checkpoint's are, made durable where the tier is on disk, and read once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.bench.fio import read_once
from tools.bench.lookup_work import EPS, LR, ROWS, TABLES

if TYPE_CHECKING:
    from pipeline.session.resources import Resources

STAGES = "tools.bench.tier_stages"
LOADED_ROWS = 1 << 16
NAMES = [f"t{table}" for table in range(TABLES)]


def write_job(directory: Path, distribution: str, steps: int, store: dict[str, Any], lookahead: int) -> Path:
    """The config file of one side: ``store`` is that part of it."""
    path = directory / "job.yaml"
    stages = {
        "source": {"use": f"{STAGES}:MadeIds", "distribution": distribution, "steps": steps},
        "distinct": {},
        "prefetch": {"lookahead": lookahead},
        "lookup": {},
        "train": {"use": f"{STAGES}:OneGradient"},
        "update": {},
        "evict": {},
    }
    optimizer = {"kind": "rowwise_adagrad", "lr": LR, "eps": EPS}
    job = {
        "device": "host",
        "run": {"threads": 2},
        "tables": {name: {"dim": 64, "init": {"kind": "zeros"}, "optimizer": optimizer} for name in NAMES},
        "features": {name: {"table": name} for name in NAMES},
        "model": {"use": f"{STAGES}:NoModel"},
        "store": store,
        "stages": stages,
    }
    path.write_text(json.dumps(job))  # JSON is YAML
    return path


def load_rows(resources: Resources) -> None:
    """Every row, all zeros, as if an earlier process had updated it."""
    from pipeline.rows.version import pack_version

    store = resources.store
    for spec in store.specs:
        for start in range(0, ROWS, LOADED_ROWS):
            ids_n = np.arange(start, min(start + LOADED_ROWS, ROWS), dtype=np.int64)
            rows_nb = np.zeros((len(ids_n), spec.layout.row_bytes), np.uint8)
            store.load_rows(spec.name, ids_n, rows_nb, np.full(len(ids_n), pack_version(1, 0)))
    store.tier.flush()
    os.sync()
    for path in (resources.run.dir / "ssd").glob("**/*"):
        if path.is_file():
            read_once(path)


def main(config: str, directory: Path) -> None:
    from tools.bench.gated_run import train

    train(config, directory, [], load_rows)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
