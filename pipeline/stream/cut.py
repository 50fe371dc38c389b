"""From a snapshot to the frames of one cut: read in chunks, encode, count, digest. Publishes nothing itself.

A frame takes rows of as many tables as fit, and all of them are read, encoded and hashed together: a cut of several
small tables costs about as much as one of a large one.

Legend: n rows of a frame; u distinct rows of a table; b bytes of a row; t tables of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise
from typing import Any

import numpy as np

from pipeline.rows.codec import find_codec
from pipeline.rows.digest import TableRuns
from pipeline.stream.carried import carried_bytes, carried_columns
from pipeline.stream.errors import StreamError
from pipeline.stream.source import Int64s, RowSnapshot, RowsRead
from pipeline.stream.taken import Changed, Waits
from pipeline.stream.whole_cut import WholeCut, WholeFrame
from pipeline.wire.dense import DenseArrays, dense_digest, split_dense
from pipeline.wire.digest import MASK, extra_digest
from pipeline.wire.frames import DEFAULT_LIMITS, CommitFrame, CutPosition, DenseFrame, Frame, RowsFrame, StreamedTable
from pipeline.wire.row_runs import NO_BYTES, NO_IDS, RowBytes, RowRuns, RunHead

MAX_FRAME_BYTES = 16 << 20
"""Of rows before compression: well below what readers accept, however long a row is."""

MAX_COLUMNS = 16 * DEFAULT_LIMITS.columns
"""That ride along in one frame, all runs together: what readers accept."""


@dataclass(frozen=True, slots=True)
class FrameSizes:
    """How much goes into one frame."""

    chunk_rows: int
    dense_bytes: int

    def rows(self, row_bytes: int) -> int:
        """Rows of ``row_bytes`` encoded bytes, with id and version, for one frame."""
        return max(1, min(self.chunk_rows, MAX_FRAME_BYTES // (row_bytes + 16)))

    def chunks(
        self, ids: Mapping[str, Int64s], row_bytes: Mapping[str, int], columns: Mapping[str, int]
    ) -> Iterator[dict[str, Int64s]]:
        """Cut ``ids`` up, in order, into what goes into one frame each: no empty tables, no empty chunk.

        ``columns``: how many ride along.
        """
        chunk: dict[str, Int64s] = {}
        room = 1.0
        for name, ids_u in ids.items():
            most, start = self.rows(row_bytes[name]), 0
            while start < len(ids_u):
                count = min(len(ids_u) - start, int(room * most)) if room * MAX_COLUMNS >= columns[name] else 0
                if count:
                    chunk[name] = ids_u[start : start + count]
                    start, room = start + count, room - max(count / most, columns[name] / MAX_COLUMNS)
                if start < len(ids_u):
                    yield chunk
                    chunk, room = {}, 1.0
        if chunk:
            yield chunk


@dataclass(slots=True)
class CutBuilder:
    """One cut in the making. ``frames`` yields its rows and dense frames, ``commit`` then ends it."""

    position: CutPosition
    previous: CutPosition
    step: int
    clock_ns: int
    snapshot: bool = False
    rewind: bool = False
    num_frames: int = 0
    num_rows: int = 0
    num_tombstones: int = 0
    digest: int = 0
    dense_digest: int | None = None
    num_bytes: int = 0
    """That went out for it."""
    waits: Waits | None = None
    """Best effort."""
    _common: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._common = {
            "generation": self.position.generation,
            "cut": self.position.cut,
            "step": self.step,
            "clock_ns": self.clock_ns,
            "snapshot": self.snapshot,
        }

    def frames(
        self,
        rows: RowSnapshot,
        ids: Mapping[str, Int64s],
        tables: Mapping[str, StreamedTable],
        dense: DenseArrays | None,
        sizes: FrameSizes,
    ) -> Iterator[Frame]:
        """Frames in order: the tables of ``ids`` as they stand there, then the dense weights. Raises SnapshotLost.

        Closes ``rows`` as soon as the last one was read: training need not keep old rows while they are encoded.
        """
        self._check_step(rows)
        row_bytes = {name: _row_bytes(tables[name]) + carried_bytes(tables[name]) for name in ids}
        chunks = sizes.chunks(ids, row_bytes, {name: len(tables[name].carries) for name in ids})
        chunk = next(chunks, None)
        while chunk is not None:
            read, following = rows.read(chunk), next(chunks, None)
            if following is None:
                rows.close()
            yield self._rows_frame(tables, chunk, read)
            chunk = following
        if dense is not None:
            self.dense_digest = dense_digest(dense)
            for pieces in split_dense(dense, sizes.dense_bytes):
                yield DenseFrame(**self._common, number=self._number(), pieces=pieces)

    def _rows_frame(
        self, tables: Mapping[str, StreamedTable], chunk: Mapping[str, Int64s], read: RowsRead
    ) -> RowsFrame:
        rows_nb, versions_n = read.rows_nb, read.versions_n
        dead: Mapping[str, Int64s] = {}
        if not bool(read.held_n.all()):
            chunk, dead = _split_held(chunk, read)
            rows_nb, versions_n = rows_nb[read.held_n], versions_n[read.held_n]
        ids_n = np.concatenate(list(chunk.values()))
        if len(ids_n) and int(versions_n.min()) <= 0:
            tables_named = ", ".join(repr(name) for name in chunk)
            raise StreamError(f"the source gave a changed row of {tables_named} without a version; this is its bug")
        encoded = self._encode(chunk, [tables[name] for name in chunk], rows_nb, ids_n, versions_n)
        runs = RowRuns(
            heads=tuple(
                RunHead(name, len(ids), _row_bytes(tables[name]) if len(ids) else 0, len(dead.get(name, NO_IDS)))
                for name, ids in chunk.items()
            ),
            ids_n=ids_n,
            versions_n=versions_n,
            rows_b=encoded[0] if len(encoded) == 1 else np.concatenate(encoded),
            tombstones_m=np.concatenate(list(dead.values())) if dead else NO_IDS,
            columns=carried_columns([(tables[name], len(ids)) for name, ids in chunk.items()], rows_nb),
        )
        self._count(runs)
        return RowsFrame(**self._common, number=self._number(), rows=runs)

    def _encode(
        self,
        chunk: Mapping[str, Int64s],
        tables: Sequence[StreamedTable],
        rows_nb: RowBytes,
        ids_n: Int64s,
        versions_n: Int64s,
    ) -> list[RowBytes]:
        """Encode and hash; neighbours whose rows are encoded alike go through their codec as one."""
        encoded: list[RowBytes] = []
        starts = [0, *accumulate(map(len, chunk.values()))]
        bounds = zip(tables, pairwise(starts), strict=True)
        for (codec, *_), group in groupby(bounds, lambda bound: _alike(bound[0])):
            run = list(group)
            layout = run[0][0].spec.layout
            first, last = run[0][1][0], run[-1][1][1]
            run_starts = [start - first for _, (start, _) in run] + [last - first]
            runs = TableRuns(
                [table.spec.name for table, _ in run], run_starts, ids_n[first:last], versions_n[first:last]
            )
            weights_nd = layout.singles(rows_nb[first:last], layout.columns[0].name)
            encoded_nb, digest = find_codec(codec).encode_hashed(weights_nd, runs)
            self.digest += digest
            encoded.append(encoded_nb.reshape(-1))
        return encoded

    def whole_frame(self, rows: RowSnapshot, changed: Changed, whole: WholeCut) -> WholeFrame | None:
        """The one frame that carries all that changed; None, and nothing is counted, where ``frames`` has to make them.

        Closes ``rows`` as ``frames`` does.
        """
        self._check_step(rows)
        made = whole.encode(rows, changed, self._frame_of)
        if made is None:
            return None
        rows.close()
        self.num_frames += 1
        self.num_rows += made.num_rows
        self.digest = (self.digest + made.digest) & MASK
        return made

    def _frame_of(self, heads: tuple[RunHead, ...]) -> RowsFrame:
        return RowsFrame(**self._common, number=self.num_frames, rows=RowRuns(heads, NO_IDS, NO_IDS, NO_BYTES))

    def _check_step(self, rows: RowSnapshot) -> None:
        if rows.step != self.step:
            raise StreamError(f"the source froze step {rows.step} at the fence of step {self.step}; this is its bug")

    def _number(self) -> int:
        self.num_frames += 1
        return self.num_frames - 1

    def _count(self, runs: RowRuns) -> None:
        self.num_rows += len(runs.ids_n)
        self.num_tombstones += len(runs.tombstones_m)
        self.digest = (self.digest + extra_digest(runs)) & MASK

    def commit(self, ended_k2: Int64s) -> CommitFrame:
        return CommitFrame(
            generation=self.position.generation,
            cut=self.position.cut,
            step=self.step,
            clock_ns=self.clock_ns,
            kind="snapshot" if self.snapshot else "cut",
            previous=self.previous,
            num_frames=self.num_frames,
            num_rows=self.num_rows,
            num_tombstones=self.num_tombstones,
            digest=self.digest,
            dense_digest=self.dense_digest,
            ended_k2=ended_k2,
            rewind=self.rewind,
            unsent=None if self.waits is None else self.waits.rows,
            oldest_ns=None if self.waits is None else self.waits.oldest_ns,
            oldest_step=None if self.waits is None else self.waits.oldest_step,
        )


def _split_held(chunk: Mapping[str, Int64s], read: RowsRead) -> tuple[dict[str, Int64s], dict[str, Int64s]]:
    """The ids whose rows the source holds, and those it does not, by table."""
    held, dead, start = {}, {}, 0
    for name, ids_n in chunk.items():
        held_n = read.held_n[start : start + len(ids_n)]
        held[name], dead[name] = ids_n[held_n], ids_n[~held_n]
        start += len(ids_n)
    return held, dead


def _alike(table: StreamedTable) -> tuple[str, int, str]:
    """Equal of tables whose weights lie alike in their rows and travel alike."""
    return table.codec, table.spec.dim, table.spec.layout.weight_dtype


def _row_bytes(table: StreamedTable) -> int:
    return find_codec(table.codec).row_bytes(table.spec.dim)
