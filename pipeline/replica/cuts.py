"""A whole, checked cut, as whoever keeps rows takes it; and where a replica stands once it is applied.

Legend: n rows; m tombstones; b bytes of one encoded row; x bytes of a row beside its weights (``carried``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.replica.carried import Carried
from pipeline.rows.codec import Codec
from pipeline.wire.frames import START, CutPosition
from pipeline.wire.transport import Position

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
RowBytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """Where one shard of a stream goes on, for a later process too."""

    epoch: str
    """The life of the transport's storage in which ``at`` is a place."""
    at: Position | None
    """Where frames begin; None: to be found from the oldest on."""
    header: bytes
    """The header frame in force there, as it came: a subscription at ``at`` does not begin with one."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A place in the stream: the last cut that was applied, and where the stream goes on behind it."""

    position: CutPosition = START
    step: int = 0
    clock_ns: int = 0
    """Wall clock at which the trainer took the cut; 0 before the first."""
    ended: bool = False
    """The cut carries the end mark of its run."""
    places: tuple[ShardPlace, ...] = ()
    """Of each shard; none: every shard is read from its oldest frame on."""
    unsent: int | None = None
    """Of a best-effort stream: how many changed rows the cut has left behind; None: of an exact one."""
    oldest_ns: int | None = None
    """Wall clock of the oldest of their changes."""
    ahead_by: int | None = None
    """The generation that computed the step, where ``position``'s has not come there again: its cuts up to there are passed over."""

    @property
    def computed_by(self) -> int:
        """The generation that computed what is held."""
        return self.position.generation if self.ahead_by is None else self.ahead_by


@dataclass(frozen=True, slots=True)
class StagedRows:
    """Rows of one table to write, and ids to forget; ids are distinct within a cut. Arrays may be views of a frame."""

    table: str
    ids_n: Int64s
    encoded_nb: RowBytes
    """Weights, as ``codec`` encodes them."""
    versions_n: Int64s
    tombstones_m: Int64s
    codec: Codec
    dim: int
    carried: Carried
    extra_nx: RowBytes
    """The columns beside the weights, side by side; ``column`` takes one out."""

    @property
    def nbytes(self) -> int:
        arrays = self.ids_n, self.encoded_nb, self.versions_n, self.tombstones_m, self.extra_nx
        return sum(int(array.nbytes) for array in arrays)

    @property
    def weights_nd(self) -> Float32s:
        """Decoded: a new array, C-contiguous."""
        return self.codec.decode(self.encoded_nb, self.dim)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Another column, [n, width] as the table stores it: a new array. Raises UnknownColumn."""
        return self.carried.pick(self.extra_nx, name)

    def chunks(self, rows: int) -> Iterator[StagedRows]:
        """Its rows, so many at a time, without the tombstones."""
        for start in range(0, len(self.ids_n), rows):
            here = slice(start, start + rows)
            yield StagedRows(
                self.table,
                self.ids_n[here],
                self.encoded_nb[here],
                self.versions_n[here],
                self.tombstones_m[:0],
                self.codec,
                self.dim,
                self.carried,
                self.extra_nx[here],
            )


def no_parts() -> Iterator[StagedRows]:
    return iter(())


@dataclass(frozen=True, slots=True)
class Cut:
    """See the module docstring. Valid until whoever applies it is done."""

    applied: Applied
    snapshot: bool
    """It replaces everything: rows that it does not name are to be forgotten."""
    parts: Callable[[], Iterator[StagedRows]] = no_parts
    """All rows, in the order of the frames; may be called again. Short-lived memory: one part at a time."""
    dense: Mapping[str, npt.NDArray[Any]] | None = None
    """The dense weights, read-only; None: they stay as they are."""
    num_ids: int | None = 0
    """Rows and tombstones; None where not all of them are in memory."""


@dataclass(frozen=True, slots=True)
class State:
    """What a view pins. ``serial`` counts applied cuts; ``dense`` is never written."""

    serial: int = 0
    applied: Applied = field(default_factory=Applied)
    dense: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
