"""fio, looked for on PATH: what a disk gives, to hold this project's reads against."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK_BYTES, FIO_DEPTH = 4096, 32
ABSENT = "absent: apt-get install fio"
ENGINES = ("io_uring", "libaio")
"""In the order in which they are tried: some systems refuse io_uring."""


@dataclass(frozen=True, slots=True)
class Window:
    """What one side read in one window: rows (fio: blocks), reads of the device or the cache, bytes, processor time."""

    rows_per_s: float
    reads_per_s: float
    bytes_per_s: float
    cpu_us_per_row: float


def usable_engine(path: Path) -> str | None:
    """The first engine with which fio can read ``path``, or None where there is no fio. Raises RuntimeError if it can with none."""
    if shutil.which("fio") is None:
        return None
    said = []
    for engine in ENGINES:
        done = _run(path, engine, 0.1, 1)
        if done.returncode == 0:
            return engine
        said.append(f"{engine}: {done.stderr.strip()[-200:]}")
    raise RuntimeError(f"fio can read {path} with none of its engines: {'; '.join(said)}")


def fio_window(path: Path, engine: str, jobs: int, seconds: float) -> Window:
    """Random reads of blocks, direct, for some seconds, by some threads that share the depth."""
    done = _run(path, engine, seconds, jobs)
    if done.returncode != 0:
        raise RuntimeError(f"fio failed on {path}: {done.stderr.strip()[-400:]}")
    (job,) = json.loads(done.stdout[done.stdout.index("{") :])["jobs"]
    read: dict[str, Any] = job["read"]
    cpu_share = jobs * (job["usr_cpu"] + job["sys_cpu"]) / 100  # fio gives those of one thread
    return Window(read["iops"], read["iops"], read["bw_bytes"], cpu_share / read["iops"] * 1e6)


def _run(path: Path, engine: str, seconds: float, jobs: int) -> subprocess.CompletedProcess[str]:
    command = ["fio", "--name=reads", f"--filename={path}", "--readonly", "--rw=randread", f"--bs={BLOCK_BYTES}"]
    command += [
        f"--iodepth={FIO_DEPTH // jobs}",
        f"--ioengine={engine}",
        "--direct=1",
        "--norandommap",
        "--randrepeat=0",
    ]
    command += [f"--numjobs={jobs}", "--thread", "--group_reporting"]
    command += ["--time_based", f"--runtime={seconds * 1e3:.0f}ms", "--output-format=json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)
