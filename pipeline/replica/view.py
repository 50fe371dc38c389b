"""A view: one cut, pinned for all tables and the dense weights together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.replica.cuts import State
from pipeline.replica.errors import ReplicaClosed, ViewExpired
from pipeline.replica.rowmap import Float32s, Int64s, RowBytes
from pipeline.rows.arrays import read_only_ids
from pipeline.rows.digest import rows_digest
from pipeline.rows.layout import Column
from pipeline.wire.digest import MASK
from pipeline.wire.frames import CutPosition

if TYPE_CHECKING:
    from pipeline.replica.tables import Tables

READ_CHUNK_ROWS = 32768


class View:
    """A context manager, made by ``Replica.view``. Close it soon: it keeps old rows alive. Any thread may use it.

    Every method but ``close`` raises ViewExpired once its rows had to go, and ReplicaClosed after ``close``.
    """

    def __init__(self, tables: Tables, state: State, check: Callable[[], None]) -> None:
        self._tables, self._state, self._check_replica = tables, state, check
        self.expired = False
        """Set by the undo log."""
        self._closed = False

    @property
    def step(self) -> int:
        """The step of the trainer at whose end this is the state; 0 before the first cut."""
        return self._state.applied.step

    @property
    def position(self) -> CutPosition:
        return self._state.applied.position

    @property
    def clock_ns(self) -> int:
        """Wall clock at which the trainer took the cut; 0 before the first."""
        return self._state.applied.clock_ns

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables held."""
        return self._tables.names

    def columns(self, table: str) -> tuple[str, ...]:
        """Names of the columns that ride along beside the weights of a table. Raises UnknownTable."""
        return tuple(column.name for column in self.carried(table))

    def carried(self, table: str) -> tuple[Column, ...]:
        """The same, as the layout describes them."""
        return tuple(self._tables.table(table).carried.columns.values())

    def lookup(self, table: str, ids_n: Any, out_nd: Float32s | None = None) -> Float32s:
        """Weights, float32 [n, dim]. A row never updated has its initial weights. Raises UnknownTable.

        They are written to ``out_nd`` if it is given (C-contiguous; a buffer that is used again saves the page faults of a new one).
        """
        return self.lookup_versions(table, ids_n, out_nd)[0]

    def lookup_versions(self, table: str, ids_n: Any, out_nd: Float32s | None = None) -> tuple[Float32s, Int64s]:
        """The same, and the packed version (``rows.version``) of each row, int64 [n]; 0 where it was never updated."""
        ids_n = read_only_ids(ids_n)
        shape = (len(ids_n), self._tables.table(table).spec.dim)
        if out_nd is None:
            out_nd = np.empty(shape, dtype=np.float32)
        elif out_nd.shape != shape or out_nd.dtype != np.float32 or not out_nd.flags.c_contiguous:
            raise ValueError(
                f"out_nd must be C-contiguous float32 {list(shape)}, got {out_nd.dtype} {list(out_nd.shape)}"
            )
        versions_n = np.zeros(len(ids_n), dtype=np.int64)
        self._read(table, ids_n, out_nd, versions_n, None)
        return out_nd, versions_n

    def column(self, table: str, name: str, ids_n: Any) -> npt.NDArray[Any]:
        """A column that rides along (a state, a meta column), [n, width] of the dtype that the table stores (bfloat16 as uint16). A row
        never updated has zeros. Raises UnknownTable, UnknownColumn.
        """
        return self.row_columns(table, ids_n, [name])[2][name]

    def row_columns(
        self, table: str, ids_n: Any, names: Sequence[str] | None = None
    ) -> tuple[Float32s, Int64s, dict[str, npt.NDArray[Any]]]:
        """Weights and versions, as ``lookup_versions``, and columns by name (None: all that ride along), of one reading of the rows."""
        ids_n, held = read_only_ids(ids_n), self._tables.table(table)
        extra_nx = held.empty_extra(len(ids_n))
        names = tuple(held.carried.columns) if names is None else names
        for name in names:
            held.carried.pick(extra_nx[:0], name)  # an unknown one is told before anything is read
        weights_nd = np.empty((len(ids_n), held.spec.dim), dtype=np.float32)
        versions_n = np.zeros(len(ids_n), dtype=np.int64)
        self._read(table, ids_n, weights_nd, versions_n, extra_nx)
        return weights_nd, versions_n, {name: held.carried.pick(extra_nx, name) for name in names}

    def _read(self, table: str, ids_n: Int64s, out_nd: Float32s, versions_n: Int64s, extra_nx: RowBytes | None) -> None:
        step = self._tables.table(table).rows.read_rows
        # At least once, so that an ended view says so whatever it is asked for.
        for start in range(0, max(len(ids_n), 1), step):
            here = slice(start, start + step)
            extra = None if extra_nx is None else extra_nx[here]
            with self._tables.lock.read:
                self._check()
                self._tables.read(self._state, table, ids_n[here], out_nd[here], versions_n[here], extra)

    def dense(self) -> Mapping[str, npt.NDArray[Any]]:
        """The dense weights by name, read-only arrays; empty where the stream carries none. They outlive the view."""
        with self._tables.lock.read:
            self._check()
            return dict(self._state.dense)

    def ids(self, table: str) -> Int64s:
        """Every id whose row was ever updated and is held, rising."""
        with self._tables.lock.read:
            self._check()
            return self._tables.ids(self._state, table)

    def digest(self) -> int:
        """Order-independent digest of all rows held, all tables together: ``rows_digest`` of each table's name, ids,
        weights as float32 bytes and versions, summed mod 2**64. Whoever holds the same rows computes the same number.
        """
        total = 0
        for table in self.tables:
            ids_n = self.ids(table)
            for start in range(0, len(ids_n), READ_CHUNK_ROWS):
                chunk = ids_n[start : start + READ_CHUNK_ROWS]
                weights_nd, versions_n = self.lookup_versions(table, chunk)
                total += rows_digest(table, chunk, weights_nd.view(np.uint8), versions_n)
        return total & MASK

    def close(self) -> None:
        """Unpin. May be called twice."""
        if not self._closed:
            self._closed = True
            with self._tables.lock.write:
                self._tables.undo.unpin(self._state.serial, self)

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self) -> None:
        self._check_replica()
        if self.expired:
            raise ViewExpired(self._state.applied.position, self._tables.undo.limit_bytes)
        if self._closed:
            raise ReplicaClosed("the view was closed")
