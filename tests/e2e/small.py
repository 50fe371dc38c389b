"""A job of a fraction of a second on a text log, as a user would write it down."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HEADER = "user,item,price,label"
CONFIG: dict[str, Any] = {
    "run": {"seed": 1, "threads": 1},
    "tables": {"user": {"dim": 8}, "item": {"dim": 8}},
    "features": {"user": {}, "item": {}},
    "model": {"use": "dlrm", "bottom_mlp": [8, 8], "top_mlp": [8, 1]},
    "store": {"l1_rows": 100},
    "stages": {
        "source": {
            "use": "csv",
            "batch_size": 16,
            "label": "label",
            "dense": ["price"],
            "features": {"user": "user", "item": "item"},
        },
        "prefetch": {},
        "lookup": {},
        "train": {},
        "update": {},
        "evict": {},
        "score": {},
        "stream": {"every": "2 steps", "codec": "fp32", "dense": True},
    },
}


def lines(count: int = 200, seed: int = 0) -> list[str]:
    """``count`` lines of a good log."""
    rng = np.random.default_rng(seed)
    users, items, prices = rng.integers(0, 60, count), rng.integers(-9, 30, count), rng.random(count)
    return [f"{users[i]},{items[i]},{prices[i]:.3f},{i % 2}" for i in range(count)]


def text(rows: Sequence[str]) -> str:
    return "".join(f"{row}\n" for row in (HEADER, *rows))


def config_file(directory: Path, paths: Path | str, **source: Any) -> Path:
    """A config in ``directory`` that trains on the log ``paths`` into ``directory``/run."""
    config = copy.deepcopy(CONFIG)
    config["run"]["dir"] = str(directory / "run")
    config["stages"]["source"] |= {"paths": str(paths), **source}
    path = directory / "job.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def good_job(directory: Path, count: int = 200) -> Path:
    """A config file and a log without fault."""
    log = directory / "log.csv"
    log.write_text(text(lines(count)))
    return config_file(directory, log)
