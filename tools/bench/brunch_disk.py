"""brunch_disk: brunch with a twentieth of its rows in L1, a fifth in the DRAM tier and the rest on disk, against the same run all resident.

Both are runs of the shipped config, its stream off, in processes of their own that go on in turn, window by window: the same steps of the
same log, so neighbouring windows have the same work. Reads are past the page cache, so what a read brings comes from the disk; what the
system counts for the process is printed beside what the row log counts, and what fio gets from the disk beside both.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.optim import RowwiseAdagradOptions, layout_of
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.store.cache_size import bytes_for
from tools.bench.fio import FIO_DEPTH, fio_window, usable_engine, write_file
from tools.bench.gated_run import Figures
from tools.bench.jobs import data_root, have_data, scratch
from tools.bench.report import BenchRow
from tools.bench.side import Side
from tools.bench.threads import per_step

NAME = "brunch_disk"
HELP = "brunch with rows in L1, DRAM and on disk: samples/s against the same run all resident"

TABLES, DIM, BATCH, SAMPLES_OF_READ = ("user", "article", "author", "hour"), 64, 2048, 5
L1_SHARE, DRAM_SHARE = 0.05, 0.20
LOOKAHEAD = 4
GOAL = 0.95
FIO_S, FIO_BYTES, FIO_JOBS = 2.0, 1 << 30, 4


@dataclass(frozen=True, slots=True)
class Scale:
    """``reads`` say how many rows there are; of their steps, so many windows are taken, the first of them to get warm."""

    reads: int
    steps: int
    windows: int


SCALES = {True: Scale(500_000, 150, 4), False: Scale(5_000_000, 400, 30)}
"""By whether it is to be quick: then only the beginning is run."""


def run(quick: bool) -> list[BenchRow]:
    if not have_data("brunch"):
        return [BenchRow(NAME, HELP, f"absent: no {data_root() / 'brunch'}; set ROWSTREAM_DATA")]
    scale = SCALES[quick]
    rows = count_rows(sorted((data_root() / "brunch").glob("reads_*.parquet")), scale.reads)
    tiers = {
        "l1_rows": int(rows * L1_SHARE),
        "dram_bytes": bytes_for([_spec(name) for name in TABLES], int(rows * DRAM_SHARE)),
    }
    disk = [f"store.{name}={value}" for name, value in tiers.items()] + ["store.ssd.direct=true"]
    common = ["stages.stream.enabled=false", f"stages.prefetch.lookahead={LOOKAHEAD}"]
    with scratch() as directory, ExitStack() as stack:
        sides = [
            stack.enter_context(Side("tools.bench.gated_run", "brunch", str(directory / name), *common, *overrides))
            for name, overrides in (("disk", disk), ("resident", [f"store.l1_rows={rows}"]))
        ]
        pairs = [[side.ask({"run": scale.steps}) for side in sides] for _ in range(scale.windows)][1:]
        iops = _iops(directory / "fio")
    knobs = {"rows": rows, "dim": DIM, **tiers, "ssd.direct": True, **sides[0].knobs, "reads": scale.reads}
    knobs |= {"steps": scale.steps, "windows": len(pairs), "stream": "off"}
    return [_row(pairs, scale.steps, iops, knobs), _threads(pairs, scale.steps, knobs)]


def _spec(name: str) -> TableSpec:
    return TableSpec(name, layout_of(RowwiseAdagradOptions(), DIM), Initializer(), 0)


def count_rows(paths: Sequence[Path], reads: int) -> int:
    """Distinct ids of all tables in the first ``reads`` rows of these files."""
    import pyarrow.parquet as parquet

    seen = {name: np.empty(0, np.int64) for name in TABLES}
    for path in paths:
        if reads <= 0:
            break
        part = parquet.read_table(path, columns=list(TABLES))[:reads]
        reads -= part.num_rows
        seen = {name: np.union1d(ids_n, part[name].to_numpy()) for name, ids_n in seen.items()}
    return sum(len(ids_n) for ids_n in seen.values())


def _iops(path: Path) -> float | None:
    write_file(path, FIO_BYTES)
    engine = usable_engine(path)
    return None if engine is None else fio_window(path, engine, FIO_JOBS, FIO_S).reads_per_s


def _row(pairs: list[list[Figures]], steps: int, iops: float | None, knobs: dict[str, object]) -> BenchRow:
    samples = BATCH * steps
    ratio = median(resident["seconds"] / disk["seconds"] for disk, resident in pairs)
    total = {name: sum(disk.get(name, 0.0) for disk, _ in pairs) for name in pairs[-1][0]}
    rates = [[samples / figures["seconds"] for figures in side] for side in zip(*pairs, strict=True)]
    reads_per_s = total["ssd.reads"] / total["seconds"]
    by_disk = (
        "fio absent: apt-get install fio" if iops is None else f"{reads_per_s / iops:.1%} of fio's {iops / 1e3:.1f} k/s"
    )
    asked = total["hits"] + total["misses"]
    text = (
        f"{median(rates[0]):,.0f} samples/s, {ratio:.1%} of resident; rows found in L1 {total['hits'] / asked:.1%}, "
        f"in DRAM {total['dram.hits'] / asked:.1%}, new {total['initial_rows'] / asked:.1%}, on disk {total['ssd.read_rows'] / asked:.1%}: "
        f"{total['ssd.reads']:,.0f} reads reached the device, {reads_per_s:,.0f}/s ({by_disk}), {total['ssd.read_bytes'] / 1e6:,.0f} MB "
        f"(the system counts {total['io.read_bytes'] / 1e6:,.0f} MB read, {total['io.write_bytes'] / 1e6:,.0f} MB written)"
    )
    return BenchRow(
        bench=NAME,
        what=f"brunch, {L1_SHARE:.0%} of the rows in L1, {DRAM_SHARE:.0%} in DRAM, all on disk",
        measured=text,
        peer=f"the same run, all rows resident (fio: randread 4 KiB, depth {FIO_DEPTH}, direct)",
        peer_measured=f"{median(rates[1]):,.0f} samples/s",
        goal=f">= {GOAL:.0%}",
        met=ratio >= GOAL,
        knobs=knobs,
    )


def _threads(pairs: list[list[Figures]], steps: int, knobs: dict[str, object]) -> BenchRow:
    """What each thread took of a step, and the time it waited for a processor: where the difference is lost."""
    disk, resident = (_threads_of(side, steps) for side in zip(*pairs, strict=True))
    return BenchRow(
        bench=NAME,
        what="ms a step that each thread ran (and waited for a processor)",
        measured=disk,
        peer="all resident",
        peer_measured=resident,
        knobs=knobs,
    )


def _threads_of(windows: Sequence[Figures], steps: int) -> str:
    names = {name for figures in windows for name in figures if name.startswith("thread.")}
    total = {name.removeprefix("thread."): sum(figures.get(name, 0.0) for figures in windows) for name in sorted(names)}
    seconds = sum(figures["seconds"] for figures in windows)
    return per_step(total, seconds, steps * len(windows))
