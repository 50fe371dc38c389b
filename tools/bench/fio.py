"""fio, looked for on PATH: what a disk gives, to hold this project's reads against."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BLOCK_BYTES, FIO_DEPTH = 4096, 32
ABSENT = "absent: apt-get install fio"
ENGINES = ("io_uring", "libaio")
"""In the order in which they are tried: some systems refuse io_uring."""
PIECE_BYTES = 64 << 20
WRITE_BYTES, WRITES_PER_SYNC, WRITE_FILE_BYTES = 1 << 20, 64, 1 << 30
"""As the row log writes: an extent at a time, through the page cache, a segment at a sync."""


@dataclass(frozen=True, slots=True)
class Writes:
    """Written beside what fio reads, to a file of its own."""

    path: Path
    bytes_per_s: float


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


def fio_window(
    path: Path,
    engine: str,
    jobs: int,
    seconds: float,
    *,
    block_bytes: int = BLOCK_BYTES,
    writes: Writes | None = None,
) -> Window:
    """Random reads of blocks, direct, for some seconds, by some threads that share the depth; with ``writes`` beside them."""
    done = _run(path, engine, seconds, jobs, block_bytes, writes)
    if done.returncode != 0:
        raise RuntimeError(f"fio failed on {path}: {done.stderr.strip()[-400:]}")
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    read: dict[str, Any] = job["read"]
    cpu_share = jobs * (job["usr_cpu"] + job["sys_cpu"]) / 100  # fio gives those of one thread
    return Window(read["iops"], read["iops"], read["bw_bytes"], cpu_share / read["iops"] * 1e6)


def write_file(path: Path, size: int) -> None:
    """Random bytes, on the device; then read once."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, size, PIECE_BYTES):
            file.write(rng.bytes(min(PIECE_BYTES, size - start)))
        file.flush()
        os.fsync(file.fileno())
    read_once(path)


def read_once(path: Path) -> None:
    """So that the device meets no block of it for the first time when it counts; and out of memory again."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(PIECE_BYTES):
            pass
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _run(
    path: Path,
    engine: str,
    seconds: float,
    jobs: int,
    block_bytes: int = BLOCK_BYTES,
    writes: Writes | None = None,
) -> subprocess.CompletedProcess[str]:
    timed = ["--time_based", f"--runtime={seconds * 1e3:.0f}ms"]
    command = [
        "fio",
        "--output-format=json",
        "--name=reads",
        f"--filename={path}",
        "--rw=randread",
        f"--bs={block_bytes}",
    ]
    command += [
        f"--iodepth={FIO_DEPTH // jobs}",
        f"--ioengine={engine}",
        "--direct=1",
        "--norandommap",
        "--randrepeat=0",
    ]
    command += [f"--numjobs={jobs}", "--thread", "--group_reporting", *timed]
    if writes is not None:
        command += ["--name=writes", "--new_group", f"--filename={writes.path}", "--rw=write", f"--bs={WRITE_BYTES}"]
        command += [f"--size={WRITE_FILE_BYTES}", "--ioengine=sync", "--numjobs=1", "--thread"]
        command += [f"--rate={max(int(writes.bytes_per_s), 1)}", f"--fsync={WRITES_PER_SYNC}", *timed]
    else:
        command.insert(1, "--readonly")
    return subprocess.run(command, capture_output=True, text=True, check=False)
