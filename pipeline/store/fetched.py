"""Rows on demand: some rows as they stand at one step's end, for people and programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.rows.arrays import read_only_ids
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.version import unpack_versions
from pipeline.store.errors import BadFetch
from pipeline.store.snapshot import SnapshotRows

WEIGHT: Final = "weight"
WORD_BYTES: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class FetchedRows:
    """Rows in the order asked, all as ``step`` left them. The arrays are the caller's own."""

    table: str
    step: int
    """The last step that had ended."""
    ids_n: npt.NDArray[np.int64]
    weights_nd: npt.NDArray[Any]
    """float32 [n, dim], whatever the table keeps; states of 16 bits come as float32 too."""
    states: Mapping[str, npt.NDArray[Any]]
    """By name of the state, [n, width]; empty where they were not asked for."""
    versions_n2: npt.NDArray[np.int64]
    """(generation, step) of each row's last update; zeros where there was none."""
    updated_n: npt.NDArray[np.bool_]
    """Where False the row was never updated, and has its initial values."""
    meta: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Meta columns by name, [n, width]; with the states, or not."""

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Weights, states and meta columns by name, in the order of the row."""
        return {WEIGHT: self.weights_nd, **self.states, **self.meta}


def checked_ids(table: str, ids: Any, most: int) -> npt.NDArray[np.int64]:
    """``ids`` as int64 [n], a copy. Raises BadFetch for anything but a one-dimensional sequence of at most ``most`` integers."""
    try:
        ids_n = read_only_ids(ids)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadFetch(table, f"ids are a one-dimensional sequence of 64-bit integers ({error})") from None
    if ids_n.shape[0] > most:
        raise BadFetch(
            table,
            f"{ids_n.shape[0]} rows were asked for, and store.fetch_rows allows {most} at once: ask in parts, or raise it",
        )
    return ids_n.copy()


class RowParts:
    """Room for packed rows of one layout in two arrays: weights lie together then, and are given away as they are."""

    def __init__(self, layout: RowLayout, count: int, states: bool) -> None:
        """``states``: whether there is room for what is behind the weights too."""
        weight_bytes, self._layout = layout.columns[0].nbytes, layout
        self._split = layout.row_bytes if weight_bytes % WORD_BYTES else weight_bytes
        self.head_nb = np.empty((count, self._split), np.uint8)
        self.tail_nb = np.empty((count, layout.row_bytes - self._split if states else 0), np.uint8)

    def put(self, at_n: npt.NDArray[np.int64], rows_nb: npt.NDArray[np.uint8]) -> None:
        """Whole rows to their places."""
        self.head_nb[at_n] = rows_nb[:, : self._split]
        self.tail_nb[at_n] = rows_nb[:, self._split : self._split + self.tail_nb.shape[1]]

    def singles(self, name: str) -> npt.NDArray[Any]:
        """As ``RowLayout.singles``."""
        in_head = self._layout.offsets[name] < self._split
        return self._layout.singles(*((self.head_nb, name) if in_head else (self.tail_nb, name, self._split)))


def unpacked(
    table: str, layout: RowLayout, step: int, ids_n: npt.NDArray[np.int64], rows: SnapshotRows, states: bool
) -> FetchedRows:
    """Columns of packed rows."""
    return gathered(table, layout, step, ids_n, partial(layout.singles, rows.rows_nb), rows.versions_n, states)


def gathered(
    table: str,
    layout: RowLayout,
    step: int,
    ids_n: npt.NDArray[np.int64],
    columns: Callable[[str], npt.NDArray[Any]],
    versions_n: npt.NDArray[np.int64],
    states: bool,
) -> FetchedRows:
    """``columns`` gives those of the rows by name, as ``RowLayout.singles``; ``versions_n`` are packed, 0 for a row never updated."""

    def named(kept: Iterable[Column]) -> dict[str, npt.NDArray[Any]]:
        return {column.name: np.ascontiguousarray(columns(column.name)) for column in kept if states}

    weights_nd, updated_n = np.ascontiguousarray(columns(WEIGHT)), versions_n > 0
    state, meta = named(layout.states), named(layout.meta)
    return FetchedRows(table, step, ids_n, weights_nd, state, unpack_versions(versions_n), updated_n, meta)
