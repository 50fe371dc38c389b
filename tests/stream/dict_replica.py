"""A replica in plain dictionaries: applies whole cuts, in order, by the rules of ``pipeline.wire.frames``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.wire import (
    START,
    CommitFrame,
    CutPosition,
    DenseAssembler,
    DenseFrame,
    HeaderFrame,
    RowsFrame,
    TableRows,
    decode_frame,
    dense_digest,
)
from tests.stream.memory_source import Tables
from tests.wire.parts import part_digest, part_weights

Piece = RowsFrame | DenseFrame


class DictReplica:
    def __init__(self) -> None:
        self.header: HeaderFrame | None = None
        self.tables: Tables = {}
        self.dense: dict[str, npt.NDArray[Any]] = {}
        self.position: CutPosition = START
        self.step = 0
        self.ended: list[tuple[int, int]] = []
        self.snapshots_loaded = 0
        self.gaps = 0
        self._staged: dict[tuple[CutPosition, bool], list[Piece]] = {}

    def feed(self, data: bytes) -> bool:
        """Take one frame. True when it made the replica move to another step's state."""
        frame = decode_frame(data, header=self.header)
        if isinstance(frame, HeaderFrame):
            self.header = frame
            for table in frame.tables:
                self.tables.setdefault(table.spec.name, {})
            return False
        if not isinstance(frame, CommitFrame):
            self._staged.setdefault((frame.position, frame.snapshot), []).append(frame)
            return False
        pieces = self._staged.pop((frame.position, frame.snapshot), [])
        if frame.position <= self.position:
            return False
        whole = [piece.number for piece in pieces] == list(range(frame.num_frames))
        if (not frame.snapshot and frame.previous > self.position) or (not whole and self.position == START):
            self.gaps += 1
            return False
        assert whole, "frames of the cut are missing"
        self._apply(frame, pieces)
        return True

    def read_again(self) -> None:
        """Forget cuts that were not committed: reading goes back to where it began."""
        self._staged.clear()

    def _apply(self, commit: CommitFrame, pieces: list[Piece]) -> None:
        assert all(piece.step == commit.step for piece in pieces)
        if commit.snapshot:
            self.tables = {name: {} for name in self.tables}
            self.snapshots_loaded += 1
        digest, assembler, seen = 0, DenseAssembler(), set()
        for piece in pieces:
            if isinstance(piece, DenseFrame):
                assembler.add(piece)
                continue
            for part in piece.rows:
                digest += self._apply_rows(part)
                for row_id in (*part.ids_n.tolist(), *part.tombstones_m.tolist()):
                    assert (part.table, row_id) not in seen, "a row comes twice in one cut"
                    seen.add((part.table, row_id))
        assert digest % (1 << 64) == commit.digest
        assert len(seen) == commit.num_rows + commit.num_tombstones
        if commit.dense_digest is not None:
            self.dense = assembler.arrays()
            assert dense_digest(self.dense) == commit.dense_digest
        self.ended += [(int(step), int(clock)) for step, clock in commit.ended_k2]
        self.position, self.step = commit.position, commit.step

    def _apply_rows(self, part: TableRows) -> int:
        assert self.header is not None
        weights_nd = part_weights(part, self.header)
        rows = self.tables[part.table]
        for row_id, weights, version in zip(part.ids_n.tolist(), weights_nd, part.versions_n.tolist(), strict=True):
            rows[row_id] = (np.ascontiguousarray(weights).tobytes(), version)
        for row_id in part.tombstones_m.tolist():
            rows.pop(row_id, None)
        return part_digest(part, weights_nd)
