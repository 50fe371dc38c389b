"""The four kinds of frame, as values. ``FORMAT.md`` beside this file describes their bytes; ``encoding`` makes and
reads them.

Legend: k ended steps.

Rules.

1. A cut is named by (generation, cut). Its rows and dense frames are numbered 0, 1, ... in the order in which they
   were published; its commit frame says how many there are. A cut without a commit frame never happened: its number
   is not used again.
2. A snapshot cut carries the number of the ordinary cut whose step it shares. Its frames have ``snapshot`` set, a
   numbering and a commit frame of their own, and may be mixed with frames of later cuts.
3. A commit frame names the committed cut before it. A reader that has applied position p may apply cut c when
   ``previous <= p < c``: it drops c when c <= p, and lacks something when previous > p.
4. A reader that begins inside a stream may meet the rest of a cut whose first frames it never saw. While it has applied
   nothing, a cut that lacks frames is passed over like one that is too far ahead; later on it is damage.
5. A reader that loads snapshot cut c goes on with the cuts behind c, which may have been committed before the snapshot
   cut was: it reads again from where it began.
6. From cut to cut the step never falls, with one exception: the rewind cut, with which a generation begins that computes
   something else from an earlier step on. It carries every row that was published since, as it stood at that step, and
   tombstones for those that were not held then. So may a snapshot cut that a reader of an older generation loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.rows.spec import TableSpec
from pipeline.wire.row_runs import RowRuns

Int64s = npt.NDArray[np.int64]


class CutPosition(NamedTuple):
    """Names a cut. Compares in the order of the stream; ``(0, 0)`` is before every cut."""

    generation: int
    cut: int


START = CutPosition(0, 0)


@dataclass(frozen=True, slots=True)
class StreamedTable:
    """One table as a stream carries it: what it is, and the codec (``rows.codec``) of its rows on the wire."""

    spec: TableSpec
    codec: str
    carries: tuple[str, ...] = ()
    """Columns of the layout that ride along in every run of its rows (states, meta), in layout order."""


@dataclass(frozen=True, slots=True)
class HeaderFrame:
    """Describes everything that follows. A stream, each segment and each generation start with one."""

    run_id: str
    """Matches ``rows.spec.NAME_PATTERN``, as do ``writer`` and ``epoch``."""
    writer: str
    shard: int
    """From 0."""
    num_shards: int
    generation: int
    epoch: str
    """The life of the transport's storage: another one means that older positions say nothing."""
    created_ns: int
    """Wall clock, nanoseconds since 1970, when the generation began."""
    tables: tuple[StreamedTable, ...]
    best_effort: bool = False
    """A cut may lack rows that changed: it is no state of the trainer, and only the newest value of each row counts."""
    continues: int | None = None
    """All generations from this one on compute the same bits, step by step: none of them is a fork. None: nothing is said of that."""
    dictionary: bytes = b""
    """With which frames behind it may be compressed; empty: none. A header may come again within its generation to bring one."""

    def table(self, name: str) -> StreamedTable:
        """The table of that name. Raises KeyError that lists the known ones."""
        for table in self.tables:
            if table.spec.name == name:
                return table
        raise KeyError(f"the stream carries no table {name!r}; it has {[t.spec.name for t in self.tables]}")


@dataclass(frozen=True, slots=True, eq=False)
class RowsFrame:
    """Some rows of a cut. A table may come in several runs and frames: small tables share a frame, large ones take many."""

    generation: int
    cut: int
    number: int
    step: int
    clock_ns: int
    """Wall clock of the fence at which the cut was taken."""
    snapshot: bool
    rows: RowRuns
    shuffled: tuple[str, ...] = ()
    """Which of ``shuffle.PARTS`` travel shuffled; ``rows`` holds them as they are."""
    delta: tuple[str, ...] = ()
    """Which of ``shuffle.NUMBERS`` travel as differences; the same holds."""

    @property
    def position(self) -> CutPosition:
        return CutPosition(self.generation, self.cut)


@dataclass(frozen=True, slots=True, eq=False)
class DensePiece:
    """A run of bytes of one dense array, C order, little endian. A large array comes in several pieces."""

    name: str
    dtype: str
    """A numpy name such as ``float32``; one of ``dense.DTYPES``."""
    shape: tuple[int, ...]
    """Of the whole array."""
    start: int
    """Where ``data`` belongs in the whole array's bytes."""
    data: bytes | memoryview


@dataclass(frozen=True, slots=True, eq=False)
class DenseFrame:
    """Pieces of the dense weights as they stood at the end of ``step``."""

    generation: int
    cut: int
    number: int
    step: int
    clock_ns: int
    snapshot: bool
    pieces: tuple[DensePiece, ...]

    @property
    def position(self) -> CutPosition:
        return CutPosition(self.generation, self.cut)


@dataclass(frozen=True, slots=True, eq=False)
class CommitFrame:
    """Ends a cut. Only when it has come, and every count and the digest agree, may the cut be applied."""

    generation: int
    cut: int
    step: int
    clock_ns: int
    kind: Literal["cut", "snapshot"]
    previous: CutPosition
    """The committed ordinary cut before this one (``START``: none). A snapshot cut repeats its ordinary cut's."""
    num_frames: int
    """Rows and dense frames of this cut."""
    num_rows: int
    num_tombstones: int
    digest: int
    """Sum over rows and tombstones, mod 2**64; see ``digest``."""
    dense_digest: int | None
    """``dense.dense_digest`` of the arrays, None when the cut carries none."""
    ended_k2: Int64s
    """[k, 2]: (step, wall clock ns of its end) of the steps that this cut is the first to carry, steps rising."""
    end: bool = False
    """The writer ended cleanly with this cut and has published everything: nothing follows in this generation."""
    rewind: bool = False
    """The first cut of a fork (rule 6)."""
    unsent: int | None = None
    """Best effort: how many changed rows wait behind this cut, those of all shards."""
    oldest_ns: int | None = None
    """Best effort: wall clock of the oldest change that waits; None when none does."""
    oldest_step: int | None = None
    """Best effort: the step of that change. What changed before it, replicas have; whoever goes on with the stream sends all else again."""

    @property
    def position(self) -> CutPosition:
        return CutPosition(self.generation, self.cut)

    @property
    def snapshot(self) -> bool:
        return self.kind == "snapshot"


Frame = HeaderFrame | RowsFrame | DenseFrame | CommitFrame


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """What a reader accepts; checked before memory is taken."""

    frame_bytes: int = 64 << 20
    """Of a frame as it travels."""
    content_bytes: int = 64 << 20
    """Of a frame after decompression."""
    rows: int = 1 << 20
    tables: int = 1024
    runs: int = 1024
    """Runs of one rows frame."""
    columns: int = 64
    """Of one table; of those that ride along in one rows frame, all runs together, 16 times as many."""
    pieces: int = 1024
    """Dense pieces of one frame."""
    dense_bytes: int = 16 << 30
    """All dense arrays of one cut."""
    dictionary_bytes: int = 1 << 20
    """Of the dictionary that a header brings."""


DEFAULT_LIMITS = FrameLimits()
