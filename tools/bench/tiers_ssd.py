"""tiers_ssd: a tenth of the rows in L1, the rest on disk, read past the page cache: held against what bounds such a step from below.

The bound is the greatest of three: the same step with all rows resident, in a second process with the same pipeline; the reads that
reach the device over fio's IOPS; the bytes they bring over fio's bandwidth. fio reads a file of written data that was read once, while
it writes another at the rate at which the run wrote. All are taken in short windows, in turn, each alone on the machine; the figure
is the median over rounds of the step over its bound. Some rows of both processes are compared at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tools.bench.fio import ABSENT, BLOCK_BYTES, FIO_DEPTH, Window, Writes, fio_window, usable_engine, write_file
from tools.bench.jobs import scratch
from tools.bench.lookup import check_rows
from tools.bench.lookup_work import ROWS, TABLES, checked_ids, make_work
from tools.bench.report import BenchRow
from tools.bench.side import Side
from tools.bench.tier_job import NAMES, write_job
from tools.bench.tiers_dram import DISTRIBUTIONS, work_knobs

NAME = "tiers_ssd"
HELP = "10 % of the rows in L1, the rest on disk, cold: a step against what bounds it"

LOOKAHEAD = 4
SEGMENT_BYTES = 4 << 20
"""Small, as a table of this bench is: with the default no segment of it would ever be compacted, which is part of the price."""
GOAL, FIO_JOBS = 1.10, (1, 4)


@dataclass(frozen=True, slots=True)
class Scale:
    warm_steps: int
    steps: int
    rounds: int
    fio_s: float
    fio_bytes: int

    @property
    def made_steps(self) -> int:
        """No batch comes twice: rows that left L1 together would come back together, in a few long reads."""
        return self.warm_steps + LOOKAHEAD + 2 + self.rounds * (self.steps + LOOKAHEAD + 2) + 4 * LOOKAHEAD


SCALES = {True: Scale(50, 8, 3, 1.0, 512 << 20), False: Scale(150, 24, 7, 2.0, 2 << 30)}
"""By whether it is to be quick."""
Taken = dict[str, float]
"""What one window of a run took, of each step."""


@dataclass(frozen=True, slots=True)
class Round:
    """One window of each, of steps or of fio's seconds."""

    disk: Taken
    resident: Taken
    reads: Window | None
    """fio's, small ones; None where there is no fio."""
    wide: Window | None

    @property
    def terms_ms(self) -> tuple[float, ...]:
        """The resident step; reads over IOPS; bytes over bandwidth."""
        resident_ms = self.resident["seconds"] * 1e3
        if self.reads is None or self.wide is None:
            return (resident_ms,)
        by_reads = self.disk["ssd.reads"] / self.reads.reads_per_s * 1e3
        by_bytes = self.disk["ssd.read_bytes"] / max(self.wide.bytes_per_s, self.reads.bytes_per_s) * 1e3
        return resident_ms, by_reads, by_bytes

    @property
    def ratio(self) -> float:
        return self.disk["seconds"] * 1e3 / max(self.terms_ms)


def run(quick: bool) -> list[BenchRow]:
    return [_measure(distribution, SCALES[quick]) for distribution in DISTRIBUTIONS]


def _measure(distribution: str, scale: Scale) -> BenchRow:
    with scratch() as directory, ExitStack() as stack:
        ssd: dict[str, Any] = {"direct": True, "segment_bytes": SEGMENT_BYTES}
        stores: dict[str, dict[str, Any]] = {
            "disk": {"l1_rows": TABLES * ROWS // 10, "ssd": ssd},
            "resident": {"l1_rows": TABLES * ROWS},
        }
        disk, resident = (
            stack.enter_context(_side(directory / name, distribution, scale, store)) for name, store in stores.items()
        )
        write_file(directory / "fio", scale.fio_bytes)
        rounds = _rounds(disk, resident, directory, scale)
        ids = {"table": NAMES[0], "ids": checked_ids(make_work(distribution, scale.made_steps)).tolist()}
        check_rows(*(side.ask({"rows": ids})["rows"] for side in (disk, resident)))
        knobs = {**work_knobs(distribution), **stores["disk"], **disk.knobs, "warm_steps": scale.warm_steps}
        knobs |= {"steps": scale.steps, "rounds": scale.rounds}
    return _row(distribution, rounds, {**knobs, "fio_window_s": scale.fio_s, "fio_file_bytes": scale.fio_bytes})


def _side(directory: Path, distribution: str, scale: Scale, store: dict[str, Any]) -> Side:
    directory.mkdir()
    job = write_job(directory, distribution, scale.made_steps, store, LOOKAHEAD)
    return Side("tools.bench.tier_job", str(job), str(directory / "run"))


def _rounds(disk: Side, resident: Side, directory: Path, scale: Scale) -> list[Round]:
    """Both sides take the same steps."""
    for side in (disk, resident):
        side.ask({"run": scale.warm_steps})
    engine = usable_engine(directory / "fio")
    rounds = []
    for _ in range(scale.rounds):
        of_disk, of_resident = (_per_step(side.ask({"run": scale.steps}), scale.steps) for side in (disk, resident))
        if engine is None:
            rounds.append(Round(of_disk, of_resident, None, None))
            continue
        writes = Writes(directory / "written", of_disk["ssd.written_bytes"] / of_disk["seconds"])
        small = [fio_window(directory / "fio", engine, jobs, scale.fio_s, writes=writes) for jobs in FIO_JOBS]
        wide = fio_window(directory / "fio", engine, 1, scale.fio_s, block_bytes=128 << 10, writes=writes)
        rounds.append(Round(of_disk, of_resident, max(small, key=lambda window: window.reads_per_s), wide))
    return rounds


def _per_step(figures: dict[str, float], steps: int) -> Taken:
    return {name: value / steps for name, value in figures.items()}


def _row(distribution: str, rounds: Sequence[Round], knobs: dict[str, object]) -> BenchRow:
    what = f"10 % of the rows in L1, the rest on disk, cold, direct, ids {distribution}"
    ms = [one.disk["seconds"] * 1e3 for one in rounds]
    of = {name: median(one.disk.get(name, 0.0) for one in rounds) for name in rounds[0].disk}
    text = f"{median(ms):.1f} ms a step ({min(ms):.1f} to {max(ms):.1f}), {of['cpu_s'] * 1e3:.0f} ms of CPU, {of['misses']:,.0f} rows"
    text += f" in {of['ssd.reads']:,.0f} reads, {of['ssd.read_bytes'] / 1e6:.1f} MB; written {of['ssd.written_bytes'] / 1e6:.1f} MB, "
    compacted = sum(one.disk["ssd.compacted_rows"] for one in rounds) / len(rounds)
    text += f"of which compaction moved {compacted:,.0f} rows"
    if rounds[0].reads is None:
        return BenchRow(NAME, what, text, "fio", ABSENT, f"<= {GOAL:.2f}x", None, knobs)
    ratio = median(one.ratio for one in rounds)
    return BenchRow(
        bench=NAME,
        what=what,
        measured=f"{text}: {ratio:.2f}x the bound",
        peer="the greatest of: step all resident; device reads / fio's IOPS; bytes / fio's bandwidth",
        peer_measured=_bound_text(rounds),
        goal=f"<= {GOAL:.2f}x",
        met=ratio <= GOAL,
        knobs=knobs,
    )


def _bound_text(rounds: Sequence[Round]) -> str:
    terms = [median(terms) for terms in zip(*(one.terms_ms for one in rounds), strict=True)]
    iops = median(one.reads.reads_per_s for one in rounds if one.reads is not None)
    bandwidth = median(one.wide.bytes_per_s for one in rounds if one.wide is not None)
    return (
        f"{terms[0]:.2f} ms; {terms[1]:.1f} ms at {iops / 1e3:.1f} k/s (randread {BLOCK_BYTES} B, depth {FIO_DEPTH} by "
        f"{' or '.join(map(str, FIO_JOBS))} threads); {terms[2]:.1f} ms at {bandwidth / 1e6:.0f} MB/s (128 KiB)"
    )
