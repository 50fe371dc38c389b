"""A cut on its way in: its frames, decoded and checked, until the commit frame says that they are all there.

Frames that would take more than ``stage.nbytes`` are kept in a temporary file without a name, as they came, and decoded
again when the cut is applied. Nothing durable lies there, so it goes past the interface for files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pipeline.replica.carried import Carried
from pipeline.replica.cuts import StagedRows
from pipeline.replica.errors import DamagedCut
from pipeline.wire.dense import DenseAssembler
from pipeline.wire.dense import dense_digest as digest_of_dense
from pipeline.wire.digest import MASK, runs_digest
from pipeline.wire.encoding import decode_frame
from pipeline.wire.errors import FrameError
from pipeline.wire.frames import CommitFrame, CutPosition, DenseFrame, FrameLimits, HeaderFrame, RowsFrame
from pipeline.wire.row_runs import RowRuns
from pipeline.wire.weights import RowBlock, split_runs

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where cuts wait for their commit frames."""

    nbytes: int = 256 << 20
    """Of a cut, in memory; what is longer waits in a temporary file in ``directory`` (None: the system's)."""
    directory: str | None = None


class StagedCut:
    """One cut, ordinary or snapshot.

    ``header`` describes its tables; rows of tables that ``wanted`` refuses are only checked.
    """

    def __init__(
        self,
        position: CutPosition,
        snapshot: bool,
        header: HeaderFrame,
        wanted: Callable[[str], bool],
        limits: FrameLimits,
        stage: Stage,
    ) -> None:
        self.position, self.snapshot = position, snapshot
        self.header = header
        """May be followed by another of its generation, which brings a dictionary."""
        self.num_frames = self.num_rows = self.num_tombstones = self.digest = 0
        self.nbytes = 0
        self._wanted, self._limits, self._stage = wanted, limits, stage
        self._carried = {table.spec.name: Carried(table.spec, table.carries) for table in header.tables}
        self._dense: DenseAssembler | None = None
        self._parts: list[StagedRows] = []
        self._spilled: list[tuple[int, int]] = []
        self._spill: IO[bytes] | None = None

    def add(self, where: str, frame: RowsFrame | DenseFrame, payload: bytes) -> None:
        """Take the next frame. Raises DamagedCut for one that does not fit its table, or that is not the next."""
        if frame.number != self.num_frames:
            raise self._damaged(where, f"frame {frame.number} came where frame {self.num_frames} was expected")
        self.num_frames += 1
        try:
            if isinstance(frame, DenseFrame):
                self._dense = self._dense or DenseAssembler(self._limits)
                self._dense.add(frame)
            else:
                self._add_rows(frame, payload)
        except FrameError as error:
            raise self._damaged(where, str(error)) from error

    def check(self, where: str, commit: CommitFrame) -> None:
        """Raises DamagedCut unless the frames are those that ``commit`` counts, with the digest it names."""
        counted = {
            "frames": (self.num_frames, commit.num_frames),
            "rows": (self.num_rows, commit.num_rows),
            "tombstones": (self.num_tombstones, commit.num_tombstones),
        }
        for name, (found, stated) in counted.items():
            if found != stated:
                raise self._damaged(where, f"{found} {name} came, the commit frame says {stated}")
        if self.digest != commit.digest:
            raise self._damaged(
                where, f"the digest of its rows is {self.digest:016x}, the commit frame says {commit.digest:016x}"
            )
        self._check_dense(where, commit)

    @property
    def num_ids(self) -> int | None:
        """Rows and tombstones; None where some wait in a file."""
        return None if self._spilled else self.num_rows + self.num_tombstones

    def dense(self) -> Mapping[str, npt.NDArray[Any]] | None:
        """The dense weights that came with the cut, read-only; None when there were none."""
        if self._dense is None:
            return None
        arrays = self._dense.arrays()
        for array in arrays.values():
            array.flags.writeable = False
        return arrays

    def parts(self) -> Iterator[StagedRows]:
        """All rows, in the order of the frames."""
        yield from self._parts
        for start, size in self._spilled:
            assert self._spill is not None
            self._spill.seek(start)
            frame = decode_frame(self._spill.read(size), self._limits, self.header)
            assert isinstance(frame, RowsFrame)
            yield from self._pick(frame.rows, split_runs(frame.rows, self.header))

    def close(self) -> None:
        """Let everything go. May be called twice."""
        self._parts, self._spilled, self._dense = [], [], None
        if self._spill is not None:
            self._spill.close()
            self._spill = None

    def _add_rows(self, frame: RowsFrame, payload: bytes) -> None:
        runs = frame.rows
        blocks = split_runs(runs, self.header)
        self.num_rows += len(runs.ids_n)
        self.num_tombstones += len(runs.tombstones_m)
        self.digest = (self.digest + runs_digest(runs, blocks)) & MASK
        wanted = list(self._pick(runs, blocks))
        if not wanted:
            return
        # Once one frame lies in the file all later ones do, so that their order stays.
        nbytes = sum(rows.nbytes for rows in wanted)
        if self._spill is None and self.nbytes + nbytes <= self._stage.nbytes:
            self._parts += wanted
            self.nbytes += nbytes
            return
        if self._spill is None:
            self._spill = tempfile.TemporaryFile(  # noqa: SIM115 - closed by close()
                prefix="rowstream-replica-", dir=self._stage.directory
            )
        self._spilled.append((self._spill.tell(), len(payload)))
        self._spill.write(payload)

    def _pick(self, runs: RowRuns, blocks: Sequence[RowBlock]) -> Iterator[StagedRows]:
        """The runs of wanted tables: views."""
        starts = runs.starts
        encoded = [
            (block, starts[number] - starts[block.first], starts[number + 1] - starts[block.first])
            for block in blocks
            for number in range(block.first, block.last)
        ]
        for part, (block, first, last) in zip(runs, encoded, strict=True):
            if self._wanted(part.table):
                carried = self._carried[part.table]
                yield StagedRows(
                    part.table,
                    part.ids_n,
                    block.encoded_nb[first:last],
                    part.versions_n,
                    part.tombstones_m,
                    block.codec,
                    block.dim,
                    carried,
                    carried.join(part.columns, len(part.ids_n)),
                )

    def _check_dense(self, where: str, commit: CommitFrame) -> None:
        if (self._dense is None) != (commit.dense_digest is None):
            raise self._damaged(where, "dense weights came without a digest, or a digest without dense weights")
        if self._dense is None or commit.dense_digest is None:
            return
        try:
            found = digest_of_dense(self._dense.arrays())
        except FrameError as error:
            raise self._damaged(where, str(error)) from error
        if found != commit.dense_digest:
            raise self._damaged(
                where,
                f"the digest of its dense weights is {found:016x}, the commit frame says {commit.dense_digest:016x}",
            )

    def _damaged(self, where: str, what: str) -> DamagedCut:
        return DamagedCut(where, self.position, self.snapshot, what)
