"""Rows of tables one by one, for tests that write frames and read them: the product keeps those of a frame together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.rows.digest import rows_digest
from pipeline.wire import HeaderFrame, RowRuns, RunHead, TableRows, split_runs
from pipeline.wire.digest import MASK, extra_digest
from pipeline.wire.row_runs import NO_BYTES, NO_IDS


def join_runs(parts: Sequence[TableRows]) -> RowRuns:
    """Copy rows of tables together. Raises ValueError for arrays of one part that disagree."""
    heads = []
    for part in parts:
        if not len(part.ids_n) == len(part.versions_n) == len(part.rows_nb):
            raise ValueError(f"{len(part.ids_n)} ids, {len(part.versions_n)} versions and {len(part.rows_nb)} rows")
        width = part.rows_nb.shape[1] if len(part.rows_nb) else 0
        heads.append(RunHead(part.table, len(part.ids_n), width, len(part.tombstones_m)))
    return RowRuns(
        heads=tuple(heads),
        ids_n=_join(NO_IDS, [part.ids_n for part in parts]),
        versions_n=_join(NO_IDS, [part.versions_n for part in parts]),
        rows_b=_join(NO_BYTES, [part.rows_nb.reshape(-1) for part in parts]),
        tombstones_m=_join(NO_IDS, [part.tombstones_m for part in parts]),
        columns={number: part.columns for number, part in enumerate(parts) if part.columns},
    )


def _join(nothing: npt.NDArray[Any], arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate([nothing, *arrays])


def part_weights(part: TableRows, header: HeaderFrame) -> npt.NDArray[np.float32]:
    """The weights of one part, decoded: float32 [n, dim]."""
    (block,) = split_runs(join_runs([part]), header)
    return block.weights_nd


def part_digest(part: TableRows, weights_nd: npt.NDArray[np.float32]) -> int:
    """Its share in the digest of its cut, from the formula alone."""
    count = len(part.ids_n)
    payload_nb = np.ascontiguousarray(weights_nd).view(np.uint8).reshape(count, 4 * weights_nd.shape[1])
    return (rows_digest(part.table, part.ids_n, payload_nb, part.versions_n) + extra_digest(join_runs([part]))) & MASK
