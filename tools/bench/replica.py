"""The replica: whole cuts applied, from frames in memory; and lookups of hot rows. One thread, one table, dim 64, fp16.

Each figure is the median of several rounds, applying and looking up by turns, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from pipeline.replica import Replica
from pipeline.replica.warm import warm_up
from pipeline.rows.codec import find_codec
from pipeline.rows.digest import TableRuns
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.memory import keep_freed_memory
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.rows.version import pack_version
from pipeline.wire import (
    CommitFrame,
    CutPosition,
    HeaderFrame,
    RowRuns,
    RowsFrame,
    RunHead,
    StreamedTable,
    encode_frame,
)
from pipeline.wire.transport import Position
from tools.bench.report import BenchRow

NAME, HELP = "replica", "whole cuts applied, and lookups of hot rows, rows a second"
DIM, CODEC, TABLE = 64, "fp16", "item"
HELD_ROWS, HOT_ROWS = 1 << 20, 20_000
CUT_ROWS, FRAME_ROWS = 200_000, 32_768
ASKED = 1 << 17
APPLY_GOAL, LOOKUP_GOAL = 2e6, 10e6


class Frames:
    """A transport of frames in memory: the reader's half."""

    name, epoch = "memory", "bench"

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def subscribe(self, position: Position | None) -> Frames:
        del position
        self._at = 0
        return self

    def next(self, timeout: float | None) -> list[tuple[Position, bytes]] | None:
        del timeout
        start, self._at = self._at, len(self.frames)
        return [(Position(1, start + n + 1), data) for n, data in enumerate(self.frames[start:])] or None

    def check_end(self) -> None:
        """Frames in a list are whole."""

    def close(self) -> None:
        """Nothing is open."""


class Writer:
    """Cuts of random rows among ``HELD_ROWS``."""

    def __init__(self) -> None:
        layout = RowLayout((Column("weight", "float32", DIM, "weight"),))
        self.table = StreamedTable(TableSpec(TABLE, layout, Initializer(), 1), CODEC)
        self.rng, self.number = np.random.default_rng(1), 0
        self.ids_n = self.rng.permutation(np.arange(HELD_ROWS, dtype=np.int64) * 7919)

    def header(self) -> bytes:
        return encode_frame(HeaderFrame("bench", "bench", 0, 1, 1, "bench", 1, (self.table,)))

    def cut(self, ids_n: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[bytes]:
        self.number += 1
        codec, frames, digest = find_codec(CODEC), list[bytes](), 0
        for start in range(0, len(ids_n), FRAME_ROWS):
            some = ids_n[start : start + FRAME_ROWS]
            versions_n = np.full(len(some), pack_version(1, self.number))
            weights_nd = self.rng.normal(size=(len(some), DIM)).astype(np.float32)
            encoded_nb, share = codec.encode_hashed(weights_nd, TableRuns((TABLE,), (0, len(some)), some, versions_n))
            digest += share
            rows = RowRuns((RunHead(TABLE, len(some), encoded_nb.shape[1]),), some, versions_n, encoded_nb.reshape(-1))
            frames.append(encode_frame(RowsFrame(1, self.number, len(frames), self.number, 1, False, rows)))
        ended_k2 = np.empty((0, 2), dtype=np.int64)
        previous = CutPosition(1, self.number - 1) if self.number > 1 else CutPosition(0, 0)
        commit = CommitFrame(
            1, self.number, self.number, 1, "cut", previous, len(frames), len(ids_n), 0, digest % 2**64, None, ended_k2
        )
        return [*frames, encode_frame(commit)]


def run(quick: bool) -> list[BenchRow]:
    """The rows of the table."""
    keep_freed_memory()  # as the command does
    warm_up()
    writer, frames = Writer(), Frames()
    frames.frames.append(writer.header())
    frames.frames += writer.cut(writer.ids_n)
    applied, looked = [], []
    with Replica(frames) as replica:  # type: ignore[arg-type]
        replica.apply_available()
        hot_n = writer.rng.choice(writer.ids_n[:HOT_ROWS], ASKED)
        out_nd = np.empty((ASKED, DIM), dtype=np.float32)
        for _ in range(3 if quick else 15):
            frames.frames += writer.cut(writer.rng.choice(writer.ids_n, CUT_ROWS, replace=False))
            applied.append(CUT_ROWS / _seconds(replica.apply_available))
            with replica.view() as view:
                view.lookup(TABLE, hot_n, out_nd)
                looked.append(ASKED / _seconds(lambda view=view: view.lookup(TABLE, hot_n, out_nd)))
    knobs = {
        "dim": DIM,
        "codec": CODEC,
        "rows held": HELD_ROWS,
        "rows of a cut": CUT_ROWS,
        "hot rows": HOT_ROWS,
        "threads": 1,
    }
    return [
        _row("frames to whole cuts applied, decoded and checked", applied, APPLY_GOAL, knobs),
        _row("lookups of hot rows, float32 out", looked, LOOKUP_GOAL, knobs),
    ]


def _seconds(call: object) -> float:
    began = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - began


def _row(what: str, rates: Sequence[float], goal: float, knobs: dict[str, object]) -> BenchRow:
    median = statistics.median(rates)
    measured = f"{median / 1e6:.2f} million rows/s ({min(rates) / 1e6:.2f} to {max(rates) / 1e6:.2f})"
    return BenchRow(NAME, what, measured, goal=f">= {goal / 1e6:.0f} million rows/s", met=median >= goal, knobs=knobs)
