"""Tables of a replica that outlive its process: in memory with a copy in a row log, or in the row log alone."""

from __future__ import annotations

from pipeline.replica.carried import Carried
from pipeline.replica.cuts import Applied, Cut, State
from pipeline.replica.errors import NotKept
from pipeline.replica.rowmap import RowMap
from pipeline.replica.table import MakeRows, rows_in_memory
from pipeline.replica.tables import Tables
from pipeline.replica.targets.log_rows import LogRows
from pipeline.replica.targets.log_store import LogStore
from pipeline.rows.spec import TableSpec
from pipeline.wire.encoding import decode_frame
from pipeline.wire.frames import FrameLimits, HeaderFrame


class _Durable(Tables):
    """What both have in common: rows and position are committed by the store."""

    def __init__(
        self,
        store: LogStore,
        pinned_bytes: int,
        wanted: frozenset[str] | None,
        limits: FrameLimits,
        make_rows: MakeRows,
    ) -> None:
        super().__init__(pinned_bytes, wanted, make_rows)
        self._store, self._limits = store, limits

    def restore(self) -> Applied | None:
        """See ``Held``. Raises what ``LogStore.open`` raises."""
        found = self._store.open(self._wanted)
        if found is None:
            return None
        applied, dense = found
        for place in applied.places:
            header = decode_frame(place.header, self._limits)
            assert isinstance(header, HeaderFrame)
            self.describe("kept header", header)
        self._load()
        for array in dense.values():
            array.flags.writeable = False
        self.state = State(0, applied, dense)
        return applied

    def describe(self, where: str, header: HeaderFrame) -> None:
        super().describe(where, header)
        try:
            self._store.begin({name: (table.spec, table.carried) for name, table in self.by_name.items()})
        except Exception as error:
            raise NotKept(self.state.applied.position, error) from error

    def commit(self) -> Applied | None:
        return self._store.commit()

    def close(self) -> None:
        self._store.close()

    def _load(self) -> None:
        """Read the rows that the store holds, if they are not read where they lie."""


class DurableTables(_Durable):
    """Rows in memory; the store is read once, at the start."""

    def __init__(self, store: LogStore, pinned_bytes: int, wanted: frozenset[str] | None, limits: FrameLimits) -> None:
        self._rows: dict[str, RowMap] = {}

        def make_rows(spec: TableSpec, carried: Carried) -> RowMap:
            self._rows[spec.name] = rows_in_memory(spec, carried)
            return self._rows[spec.name]

        super().__init__(store, pinned_bytes, wanted, limits, make_rows)

    def keep(self, cut: Cut) -> None:
        self._store.apply(cut)
        self._store.take(cut)

    def _load(self) -> None:
        for name, table in self._rows.items():
            for rows in self._store.rows(name):
                table.put(rows.ids_n, rows.weights_nd, rows.versions_n, rows.extra_nx)


class DiskTables(_Durable):
    """Rows on disk alone: more of them than memory has room for."""

    def __init__(self, store: LogStore, pinned_bytes: int, wanted: frozenset[str] | None, limits: FrameLimits) -> None:
        def make_rows(spec: TableSpec, carried: Carried) -> LogRows:
            return LogRows(store, spec, carried)

        super().__init__(store, pinned_bytes, wanted, limits, make_rows)

    def apply(self, cut: Cut) -> int:
        self._store.begin_cut()
        return super().apply(cut)

    def keep(self, cut: Cut) -> None:
        self._store.take(cut)
