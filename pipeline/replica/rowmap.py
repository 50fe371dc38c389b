"""Rows by id, in memory: float32 weights, and what rides along beside them, at places that a row never leaves.

A row that is replaced gets another place, and the old one stays as it is until it is freed: nobody copies it for those who still read it.

Legend: n ids of one call; d weights of a row; x bytes of a row beside its weights (``carried``); p places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.replica import kernels
from pipeline.replica.blocks import Blocks
from pipeline.replica.cuts import StagedRows
from pipeline.replica.old_rows import OldPlaces
from pipeline.replica.places import PlaceIndex
from pipeline.rows.arrays import read_only, read_only_ids
from pipeline.rows.codec import aligned

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
RowBytes = npt.NDArray[np.uint8]
NO_EXTRA: RowBytes = np.empty((0, 0), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class PlacedRows:
    """Rows that lie where they will be read, and that nobody finds yet."""

    ids_n: Int64s
    places_n: Int64s


class RowMap:
    """One writer at a time. ``place`` and ``put_places`` may be beside readers; ``show`` and ``remove`` alone."""

    read_rows = 32768
    """So many rows may be read at once while a writer waits."""

    def __init__(self, dim: int, extra_bytes: int = 0) -> None:
        self.dim, self.extra_bytes = dim, extra_bytes
        self._extra_at = kernels.WEIGHTS_AT + 4 * dim
        self._blocks = Blocks(dim, extra_bytes)
        self.index = PlaceIndex(self._blocks)

    @property
    def count(self) -> int:
        return self.index.count

    @property
    def row_bytes(self) -> int:
        """What one row takes, beside the index."""
        return self._blocks.stride

    @property
    def nbytes(self) -> int:
        """What the rows and the index take."""
        return self.index.count * self.row_bytes + self.index.nbytes

    def ids(self) -> Int64s:
        """All ids held, a copy."""
        return self.index.ids()

    def read_found(self, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes | None = None) -> None:
        """Overwrite what is given for ids that are held; duplicates allowed."""
        if not self.index.count:
            return
        blocks, ids_n = self._blocks, read_only_ids(ids_n)
        bits_nd = out_nd.view(np.uint32)
        kernels.read_found(self.index.entries_c, blocks.rows_k, blocks.stride, ids_n, bits_nd, versions_n)
        if extra_nx is not None and self.extra_bytes:
            kernels.read_bytes(blocks.rows_k, blocks.stride, self._extra_at, self.index.find(ids_n), extra_nx)

    def read_places(
        self, places_n: Int64s, out_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes | None = None
    ) -> None:
        """Overwrite what is given with the rows at these places; -1: leave it; ``kernels.ABSENT``: there was no row."""
        blocks = self._blocks
        kernels.read_rows(blocks.rows_k, blocks.stride, places_n, out_nd.view(np.uint32), versions_n)
        if extra_nx is not None and self.extra_bytes:
            kernels.read_bytes(blocks.rows_k, blocks.stride, self._extra_at, places_n, extra_nx)

    def place(self, rows: StagedRows) -> PlacedRows:
        """Write rows where nobody reads; what kernels can decode is decoded where it will lie."""
        kind, ids_n = rows.codec.kind, rows.ids_n
        if kind is None or not len(ids_n):
            return self._place(ids_n, rows.codec.decode(rows.encoded_nb, self.dim), rows.versions_n, rows.extra_nx)
        places_n, blocks = self.index.take(len(ids_n)), self._blocks
        encoded_nb, versions_n = aligned(rows.encoded_nb), read_only(rows.versions_n, np.int64)
        kernels.write_encoded(
            kind, self.dim, blocks.rows_k, blocks.stride, places_n, read_only_ids(ids_n), versions_n, encoded_nb
        )
        self._write_extra(places_n, rows.extra_nx)
        return PlacedRows(ids_n, places_n)

    def show(self, rows: PlacedRows, old: OldPlaces | None) -> Int64s:
        """From here on these rows are found. Those they replace go to ``old``, or are freed. Returns the places."""
        self._drop(rows.ids_n, self.index.point(rows.ids_n, rows.places_n), old)
        return rows.places_n

    def remove(self, ids_n: Int64s, old: OldPlaces | None = None) -> None:
        """Forget rows, which go to ``old`` or are freed; absent ids are passed over."""
        self._drop(ids_n, self.index.detach(ids_n), old)

    def put(self, ids_n: Int64s, weights_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes = NO_EXTRA) -> None:
        """Insert or replace rows."""
        self.show(self._place(ids_n, weights_nd, versions_n, extra_nx), None)

    def old_rows(self) -> OldPlaces:
        """Where rows go that are replaced, while somebody may still read them."""
        return OldPlaces(self)

    def naming(self) -> Naming:
        """Rows of a snapshot cut are about to be shown: takes down which."""
        return Naming(self)

    def _place(self, ids_n: Int64s, weights_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes) -> PlacedRows:
        places_n, blocks = self.index.take(len(ids_n)), self._blocks
        bits_nd, versions_n = read_only(weights_nd, np.float32).view(np.uint32), read_only(versions_n, np.int64)
        kernels.write_rows(blocks.rows_k, blocks.stride, places_n, read_only_ids(ids_n), versions_n, bits_nd)
        self._write_extra(places_n, extra_nx)
        return PlacedRows(ids_n, places_n)

    def _write_extra(self, places_n: Int64s, extra_nx: RowBytes) -> None:
        if self.extra_bytes and len(places_n):
            blocks, extra_nx = self._blocks, read_only(extra_nx, np.uint8)
            kernels.write_bytes(blocks.rows_k, blocks.stride, self._extra_at, places_n, extra_nx)

    def _drop(self, ids_n: Int64s, places_n: Int64s, old: OldPlaces | None) -> None:
        if old is None:
            self.index.free(places_n)
        else:
            old.keep(ids_n, places_n)


class Naming:
    """Which rows of a map a snapshot cut names: a bit for each place."""

    def __init__(self, rows: RowMap) -> None:
        self._rows = rows
        self._named_p = np.zeros(0, dtype=np.bool_)

    def add(self, _ids_n: Int64s, places_n: Int64s) -> None:
        """Rows that were shown; the bits grow by doubling."""
        size, had = int(places_n.max(initial=-1)) + 1, len(self._named_p)
        if size > had:
            self._named_p = np.concatenate([self._named_p, np.zeros(max(size - had, had), dtype=np.bool_)])
        self._named_p[places_n] = True

    def others(self) -> Int64s:
        """Ids held that were not named."""
        ids_n, places_n = self._rows.index.items()
        known = places_n < len(self._named_p)
        kept = np.zeros(len(ids_n), dtype=np.bool_)
        kept[known] = self._named_p[places_n[known]]
        return ids_n[~kept]
