"""Where negatives are drawn from. Each drawer remembers what it must of the positives so far, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from stages.items import Int64s
from stages.logs.errors import EmptyLog, MissingColumns, UnreadableLog
from stages.negatives.drawn import Bools, Drawn, Items
from stages.negatives.kernels import draw_from_seen, draw_from_window, fill_table
from stages.sources.samples import offsets_of


class Drawer(Protocol):
    """Draws for the positives of a batch, then remembers their items."""

    def fits(self, num_along: int) -> bool:
        """Whether it remembers, or can, so many numbers along with an item."""

    def draw(self, key: np.uint64, first: int, draws: int, positive_b: Bools, items: Items) -> Drawn: ...

    def state(self) -> Any: ...

    def restore(self, state: Any) -> None: ...


def _drawn_at(picks_bk: Int64s, ids_m: Int64s, along_am: Int64s) -> Drawn:
    there_bk = picks_bk >= 0
    if len(ids_m) == 0:
        return Drawn(there_bk, np.zeros_like(picks_bk), np.zeros((len(along_am), *picks_bk.shape), np.int64))
    return Drawn(there_bk, ids_m[picks_bk], along_am[:, picks_bk])


class WindowItems:
    """The items of the last ``window`` positives, as often as they came. They are the last of the first ``end`` kept."""

    def __init__(self, window: int, num_along: int) -> None:
        self._window, self._end = window, 0
        self._ids_m = np.zeros(2 * window, np.int64)
        self._along_am = np.zeros((2 * num_along, 2 * window), np.int64)

    def fits(self, num_along: int) -> bool:
        if not self._end and len(self._along_am) != num_along:
            self._along_am = np.zeros((num_along, len(self._ids_m)), np.int64)
        return len(self._along_am) == num_along

    def draw(self, key: np.uint64, first: int, draws: int, positive_b: Bools, items: Items) -> Drawn:
        lengths_b = np.where(positive_b, np.diff(items.offsets_b), 0)
        kept_n = np.repeat(positive_b, np.diff(items.offsets_b))
        self._make_room(int(kept_n.sum()))
        begin, self._end = self._end, self._end + int(kept_n.sum())
        self._ids_m[begin : self._end] = items.ids_n[kept_n]
        self._along_am[:, begin : self._end] = items.along_an[:, kept_n]
        ends_b = begin + offsets_of(lengths_b)[:-1]
        picks_bk = np.empty((len(positive_b), draws), np.int64)
        draw_from_window(
            key, first, self._window, self._ids_m, ends_b, items.ids_n, items.offsets_b, positive_b, picks_bk
        )
        return _drawn_at(picks_bk, self._ids_m, self._along_am)

    def _make_room(self, count: int) -> None:
        """Move the window to the front when the end is near: once in a window's length, so it costs little."""
        if self._end + count <= len(self._ids_m):
            return
        low = max(0, self._end - self._window)
        ids_m, along_am = self._ids_m[low : self._end], self._along_am[:, low : self._end]
        size = max(2 * self._window, self._window + count)
        self._end -= low
        self._ids_m = np.concatenate([ids_m, np.zeros(size - self._end, np.int64)])
        self._along_am = np.concatenate([along_am, np.zeros((len(along_am), size - self._end), np.int64)], axis=1)

    def state(self) -> Any:
        low = max(0, self._end - self._window)
        return {"ids": self._ids_m[low : self._end].tobytes(), "along": self._along_am[:, low : self._end].tobytes()}

    def restore(self, state: Any) -> None:
        ids_m, along_am = _remembered(state, len(self._along_am))
        assert self.fits(len(along_am))
        self._end = len(ids_m)
        self._ids_m[: self._end] = ids_m
        self._along_am[:, : self._end] = along_am


class SeenItems:
    """The distinct items of all positives so far, or a fair sample of them when there are more than ``most``."""

    def __init__(self, most: int, num_along: int) -> None:
        self._known_m = np.zeros(most, np.int64)
        self._along_am = np.zeros((2 * num_along, most), np.int64)
        self._counts = np.zeros(2, np.int64)
        self._table = np.full(1 << (2 * most - 1).bit_length(), -1, np.int64)

    def fits(self, num_along: int) -> bool:
        if not self._counts[0] and len(self._along_am) != num_along:
            self._along_am = np.zeros((num_along, len(self._known_m)), np.int64)
        return len(self._along_am) == num_along

    def draw(self, key: np.uint64, first: int, draws: int, positive_b: Bools, items: Items) -> Drawn:
        shape = (len(positive_b), draws)
        drawn = Drawn(
            np.zeros(shape, np.bool_), np.zeros(shape, np.int64), np.zeros((len(self._along_am), *shape), np.int64)
        )
        draw_from_seen(
            key,
            first,
            self._table,
            self._known_m,
            self._along_am,
            self._counts,
            items.ids_n,
            items.along_an,
            items.offsets_b,
            positive_b,
            drawn.there_bk,
            drawn.ids_bk,
            drawn.along_abk,
        )
        return drawn

    def state(self) -> Any:
        count = int(self._counts[0])
        return {
            "ids": self._known_m[:count].tobytes(),
            "along": self._along_am[:, :count].tobytes(),
            "admitted": int(self._counts[1]),
        }

    def restore(self, state: Any) -> None:
        ids_m, along_am = _remembered(state, len(self._along_am))
        assert self.fits(len(along_am))
        self._known_m[: len(ids_m)] = ids_m
        self._along_am[:, : len(ids_m)] = along_am
        self._counts[:] = (len(ids_m), state["admitted"])
        self._table.fill(-1)
        fill_table(self._table, ids_m)


class FixedItems:
    """Items of a file; nothing is remembered."""

    def __init__(self, ids_m: Int64s, along_am: Int64s) -> None:
        self._ids_m, self._along_am = ids_m, along_am

    def fits(self, num_along: int) -> bool:
        return len(self._along_am) == num_along

    def draw(self, key: np.uint64, first: int, draws: int, positive_b: Bools, items: Items) -> Drawn:
        count = len(self._ids_m)
        ends_b = np.full(len(positive_b), count, np.int64)
        picks_bk = np.empty((len(positive_b), draws), np.int64)
        draw_from_window(key, first, count, self._ids_m, ends_b, items.ids_n, items.offsets_b, positive_b, picks_bk)
        return _drawn_at(picks_bk, self._ids_m, self._along_am)

    def state(self) -> Any:
        return None

    def restore(self, state: Any) -> None:
        """There is nothing to take back."""


def _remembered(state: Any, num_along: int) -> tuple[Int64s, Int64s]:
    """Ids, and the numbers that went along with each: ``num_along`` where there is no id to tell."""
    ids_m, along = (np.frombuffer(state[key], np.int64) for key in ("ids", "along"))
    return ids_m, along.reshape(len(along) // len(ids_m) if len(ids_m) else num_along, len(ids_m))


def read_candidates(path: str, item: str, along: Sequence[str]) -> FixedItems:
    """The distinct items of a file, first come first. Blocks. Raises LogError."""
    names = [item, *along]
    try:
        if Path(path).suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        else:
            types = pyarrow.csv.ConvertOptions(column_types={name: pa.int64() for name in names})
            table = pyarrow.csv.read_csv(path, convert_options=types)
    except (OSError, pa.ArrowException) as error:
        raise UnreadableLog(path, str(error)) from error
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise MissingColumns(path, missing, table.column_names)
    table = table.select(names).filter(table[item].is_valid())
    if table.num_rows == 0:
        raise EmptyLog([path])
    columns = [_ids(path, table[name]) for name in names]
    there = [table[name].is_valid().to_numpy().astype(np.int64) for name in along]
    first_m = np.sort(np.unique(columns[0], return_index=True)[1])
    along_am = np.array([*columns[1:], *there], np.int64).reshape(2 * len(along), len(columns[0]))
    return FixedItems(columns[0][first_m], np.ascontiguousarray(along_am[:, first_m]))


def _ids(path: str, column: pa.ChunkedArray) -> Int64s:
    try:
        ids: Int64s = column.fill_null(0).cast(pa.int64()).to_numpy()
    except pa.ArrowException as error:
        raise UnreadableLog(path, f"a column of candidates holds no int64 ids: {error}") from error
    return ids
