"""A replica's view held against a checkpoint of the same step: every row of every table, both ways, and the dense weights.

Two rows are equal when id, weights and step of the last update are; the generation is not compared. The weights that a replica must
hold are what the table's codec makes of the trainer's; columns that ride along (states, meta) are the trainer's. Memory: nine bytes a
row of one table, and a chunk of rows.

Legend: n rows of a chunk; d weights of a row.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.replica import View
from pipeline.rowlog import CheckpointReader, RowChunk
from pipeline.rowlog.checkpoint.export import DENSE_BLOB
from pipeline.rows.codec import find_codec
from pipeline.rows.version import steps_of
from pipeline.wire import HeaderFrame, StreamedTable

SHOWN = 10
"""Rows that are told one by one: of those of the trainer in each table, and of those that it does not hold."""
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """``id``: None where the dense weights differ. ``step``: of the row's last update at the trainer; None: it holds no such row."""

    table: str
    id: int | None
    step: int | None
    what: str

    def __str__(self) -> str:
        if self.id is None:
            return f"{self.table}: {self.what}"
        at = "" if self.step is None else f" (updated at step {self.step})"
        return f"table {self.table}, id {self.id}{at}: {self.what}"


@dataclass(slots=True)
class Compared:
    """``rows``: of the trainer, by table. ``different``: how many rows and dense arrays differ; ``first`` tells some of them."""

    step: int
    rows: dict[str, int] = field(default_factory=dict)
    dense_arrays: int = 0
    different: int = 0
    first: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare(view: View, reader: CheckpointReader, header: HeaderFrame) -> Compared:
    """``header``: of the stream that the replica follows. Both must be of one step. Raises what reading the checkpoint raises."""
    compared = Compared(reader.manifest.step)
    streamed = {table.spec.name: table for table in header.tables}
    held = {spec.name for spec in reader.tables}
    for name in view.tables:
        if name in held and name in streamed:
            _Table(view, reader, streamed[name], compared).compare()
        else:
            compared.different += 1
            compared.first.append(Difference(name, None, None, "the trainer has no such table"))
    left_out = [name for name in held if name not in view.tables]
    if left_out:
        compared.notes.append(f"not in the stream, so not compared: {', '.join(sorted(left_out))}")
    _compare_dense(view, reader, compared)
    return compared


class _Table:
    def __init__(self, view: View, reader: CheckpointReader, streamed: StreamedTable, compared: Compared) -> None:
        self._view, self._reader, self._compared = view, reader, compared
        self._name, self._codec = streamed.spec.name, find_codec(streamed.codec)
        self._layout = reader.entry(self._name).spec.layout
        self._shown = 0

    def compare(self) -> None:
        ids_h = self._view.ids(self._name)
        named_h = np.zeros(len(ids_h), dtype=np.bool_)
        count = 0
        for chunk in self._reader.rows(self._name):
            count += len(chunk.ids_n)
            places_n = np.searchsorted(ids_h, chunk.ids_n)
            places_n[places_n == len(ids_h)] = 0
            held_n = ids_h[places_n] == chunk.ids_n if len(ids_h) else np.zeros(len(chunk.ids_n), dtype=np.bool_)
            named_h[places_n[held_n]] = True
            self._tell(chunk.ids_n, steps_of(chunk.versions_n), list(self._reasons(chunk, held_n)))
        extra, self._shown = ids_h[~named_h], 0
        self._tell(extra, None, [(np.ones(len(extra), np.bool_), lambda _: "the trainer does not hold this row")])
        self._compared.rows[self._name] = count

    def _reasons(self, chunk: RowChunk, held_n: Bools) -> Iterator[tuple[Bools, Callable[[int], str]]]:
        """Why a row may differ: of which rows that is so, and what to say of one."""
        layout, first = self._layout, self._layout.columns[0].name
        yield ~held_n, lambda _: "the replica does not hold it"
        found_nd, versions_n, columns = self._view.row_columns(self._name, chunk.ids_n)
        steps_n = steps_of(versions_n)
        yield steps_n != steps_of(chunk.versions_n), lambda n: f"the replica's was updated at step {steps_n[n]}"
        weights_nd = np.ascontiguousarray(layout.singles(chunk.rows_nb, first))
        sent_nd = self._codec.decode(self._codec.encode(weights_nd), weights_nd.shape[1])
        yield _differ(first, sent_nd, found_nd)
        for name, values_nw in columns.items():
            yield _differ(name, layout.view(chunk.rows_nb, name), values_nw)

    def _tell(
        self, ids_n: Int64s, steps_n: Int64s | None, reasons: Sequence[tuple[Bools, Callable[[int], str]]]
    ) -> None:
        differs_n = np.logical_or.reduce([of_n for of_n, _ in reasons])
        self._compared.different += int(differs_n.sum())
        for n in np.flatnonzero(differs_n)[: SHOWN - self._shown].tolist():
            what = next(say(n) for of_n, say in reasons if of_n[n])
            step = None if steps_n is None else int(steps_n[n])
            self._compared.first.append(Difference(self._name, int(ids_n[n]), step, what))
            self._shown += 1


def _differ(column: str, sent_nd: Array, found_nd: Array) -> tuple[Bools, Callable[[int], str]]:
    """Bit for bit: NaNs and zeros of either sign are told apart."""
    count, width = sent_nd.shape
    sent_b, found_b = (
        np.ascontiguousarray(one).view(np.uint8).reshape(count, width, -1) for one in (sent_nd, found_nd)
    )
    differs_nd = (sent_b != found_b).any(axis=2)

    def say(n: int) -> str:
        d = int(np.flatnonzero(differs_nd[n])[0])
        return f"{column}[{d}] is {sent_nd[n, d]}, the replica's {found_nd[n, d]}"

    return differs_nd.any(axis=1), say


def _compare_dense(view: View, reader: CheckpointReader, compared: Compared) -> None:
    found = view.dense()
    if not found:
        compared.notes.append("the stream carries no dense weights")
        return
    with np.load(io.BytesIO(reader.blob(DENSE_BLOB))) as arrays:
        ours = {name: arrays[name] for name in arrays.files}
    compared.dense_arrays = len(ours)
    for name in sorted(ours.keys() | found.keys()):
        if name not in found or name not in ours:
            what = "the trainer has no such array" if name in found else "the replica has no such array"
        elif _meaning(ours[name]) == _meaning(found[name]):
            continue
        else:
            what = "its values differ"
        compared.different += 1
        compared.first.append(Difference(f"dense weights, {name}", None, None, what))


def _meaning(array: Array) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.name, array.shape, array.tobytes()
