"""What exactness needs of the process, pinned before torch loads, and the record of where a run ran.

torch on the CPU gives other bits for the same product when an input is not 16-byte aligned, unless ``MKL_CBWR`` is set before
its libraries load; with dynamic thread counts the split of a product may change between two runs.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.rows.memory import keep_freed_memory as keep_freed_memory

PINNED = {
    "MKL_CBWR": "AVX2,STRICT",
    "MKL_DYNAMIC": "FALSE",
    "OMP_DYNAMIC": "FALSE",
    "KMP_BLOCKTIME": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
}
RECORDED_PACKAGES = ("rowstream", "torch", "numpy", "numba", "msgpack", "zstandard", "pyarrow")


class EnvironmentNotPinned(RuntimeError):
    """torch was loaded before the environment was pinned."""

    exit_code = 1


def pin() -> None:
    """Set the variables of ``PINNED`` that are not set. Raises EnvironmentNotPinned when torch is loaded and they were not."""
    missing = [name for name in PINNED if name not in os.environ]
    if missing and "torch" in sys.modules:
        raise EnvironmentNotPinned(
            f"torch is already loaded and {missing} are not set: results would depend on memory alignment. "
            "Call pipeline.session.environment.pin() before importing torch, or set them outside."
        )
    for name in missing:
        os.environ[name] = PINNED[name]


def leave_start_to_itself() -> None:
    """Take what was made so far out of the garbage collector's sight: torch and Numba leave 200,000 objects that live as long as the
    process, and a full collection that walks them holds the interpreter for 0.1 s, in the middle of training.
    """
    gc.collect()
    gc.freeze()


def cpu_class() -> str:
    """The processor's model name, or the machine's architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    named = {key.strip(): value for key, value in names.items()}
    return f"{platform.machine()} {named.get('model name', '')} family {named.get('cpu family', '?')}"


def record(threads: int) -> dict[str, Any]:
    """What the bits of a run depend on, besides its config and data."""
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "cpu": cpu_class(),
        "threads": threads,
        "packages": versions,
        "pinned": {name: os.environ.get(name, "") for name in PINNED},
    }
