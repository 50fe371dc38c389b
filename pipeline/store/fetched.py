"""Rows on demand: some rows as they stand at one step's end, for people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.rows.arrays import read_only_ids
from pipeline.rows.layout import RowLayout
from pipeline.rows.version import unpack_versions
from pipeline.store.errors import BadFetch
from pipeline.store.snapshot import SnapshotRows

WEIGHT: Final = "weight"


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

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Weights and states by name, in the order of the row."""
        return {WEIGHT: self.weights_nd, **self.states}


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


def unpacked(
    table: str, layout: RowLayout, step: int, ids_n: npt.NDArray[np.int64], rows: SnapshotRows, states: bool
) -> FetchedRows:
    """Columns of packed rows."""
    weights_nd = np.ascontiguousarray(layout.singles(rows.rows_nb, WEIGHT))
    wanted = layout.states if states else ()
    named = {column.name: np.ascontiguousarray(layout.singles(rows.rows_nb, column.name)) for column in wanted}
    return FetchedRows(table, step, ids_n, weights_nd, named, unpack_versions(rows.versions_n), rows.held_n)
