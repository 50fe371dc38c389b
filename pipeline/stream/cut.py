"""From a snapshot to the frames of one cut: read in chunks, encode, count, digest. Publishes nothing itself.

Legend: n rows of a chunk; u distinct rows of a table; b bytes of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.rows.codec import Codec, find_codec
from pipeline.stream.errors import StreamError
from pipeline.stream.source import Int64s, RowSnapshot
from pipeline.wire.dense import DenseArrays, dense_digest, split_dense
from pipeline.wire.digest import MASK, frame_digest
from pipeline.wire.frames import (
    NO_IDS,
    CommitFrame,
    CutPosition,
    DenseFrame,
    Frame,
    RowsFrame,
    StreamedTable,
)

MAX_FRAME_BYTES = 16 << 20
"""Of rows before compression: well below what readers accept, however long a row is."""


@dataclass(frozen=True, slots=True)
class FrameSizes:
    """How much goes into one frame."""

    chunk_rows: int
    dense_bytes: int

    def rows(self, row_bytes: int) -> int:
        """Rows of ``row_bytes`` encoded bytes, with id and version, for one frame."""
        return max(1, min(self.chunk_rows, MAX_FRAME_BYTES // (row_bytes + 16)))


@dataclass(slots=True)
class CutBuilder:
    """One cut in the making. ``frames`` yields its rows and dense frames, ``commit`` then ends it."""

    position: CutPosition
    previous: CutPosition
    step: int
    clock_ns: int
    snapshot: bool
    num_frames: int = 0
    num_rows: int = 0
    num_tombstones: int = 0
    digest: int = 0
    dense_digest: int | None = None
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
        """Frames in order: the tables of ``ids`` as they stand there, then the dense weights. Raises SnapshotLost."""
        for name, ids_u in ids.items():
            table = tables[name]
            codec = find_codec(table.codec)
            chunk = sizes.rows(codec.row_bytes(table.spec.dim))
            for start in range(0, len(ids_u), chunk):
                yield self._rows_frame(table, codec, rows, ids_u[start : start + chunk])
        if dense is not None:
            self.dense_digest = dense_digest(dense)
            for pieces in split_dense(dense, sizes.dense_bytes):
                yield DenseFrame(**self._common, number=self._number(), pieces=pieces)

    def _rows_frame(self, table: StreamedTable, codec: Codec, rows: RowSnapshot, ids_n: Int64s) -> RowsFrame:
        spec = table.spec
        read = rows.read(spec.name, ids_n)
        rows_nb, versions_n, dead_m = read.rows_nb, read.versions_n, NO_IDS
        if not bool(read.held_n.all()):
            held_n = read.held_n
            dead_m, ids_n, rows_nb, versions_n = ids_n[~held_n], ids_n[held_n], rows_nb[held_n], versions_n[held_n]
        if len(ids_n) and int(versions_n.min()) <= 0:
            raise StreamError(f"table {spec.name!r}: the source gave a changed row without a version; this is its bug")
        encoded_nb = codec.encode(spec.layout.view(rows_nb, "weight").view(np.float32))
        frame = RowsFrame(
            **self._common,
            number=self._number(),
            table=spec.name,
            ids_n=ids_n,
            rows_nb=encoded_nb,
            versions_n=versions_n,
            tombstones_m=dead_m,
        )
        self._count(frame, codec.decode(encoded_nb, spec.dim))
        return frame

    def _number(self) -> int:
        self.num_frames += 1
        return self.num_frames - 1

    def _count(self, frame: RowsFrame, weights_nd: npt.NDArray[np.float32]) -> None:
        self.num_rows += len(frame.ids_n)
        self.num_tombstones += len(frame.tombstones_m)
        self.digest = (self.digest + frame_digest(frame, weights_nd)) & MASK

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
        )
