"""The store as the stream sees it: the adapter between ``pipeline.store`` and ``pipeline.stream.RowSource``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch

from pipeline.flow.run_info import RunInfo
from pipeline.models.arrays import dense_arrays
from pipeline.rows.codec import find_codec
from pipeline.rows.room import MakeRoom
from pipeline.rows.spec import TableSpec
from pipeline.rows.version import pack_version
from pipeline.store import Snapshot, SnapshotAbandoned, Store
from pipeline.stream import ChangedIds, RowsRead, Selection, SnapshotLost, selected
from pipeline.wire.frames import StreamedTable

Result = TypeVar("Result")


class StoreRowSnapshot:
    """A store's snapshot, its loss told in the stream's words."""

    def __init__(self, snapshot: Snapshot, codecs_t: Sequence[str] | None) -> None:
        """``codecs_t``: None where kernels lack one of them."""
        self._snapshot, self._codecs_t = snapshot, codecs_t
        self.step = snapshot.step

    def ids(self, table: str) -> Any:
        try:
            return self._snapshot.ids(table)
        except SnapshotAbandoned as error:
            raise SnapshotLost(str(error)) from error

    def read(self, ids: Mapping[str, Any]) -> RowsRead:
        try:
            return self._snapshot.read_tables(ids)
        except SnapshotAbandoned as error:
            raise SnapshotLost(str(error)) from error

    def encode(self, tables: Sequence[str], groups: tuple[Any, Any], make_room: MakeRoom) -> int | None:
        return None if self._codecs_t is None else self._snapshot.encode(tables, groups, self._codecs_t, make_room)

    def close(self) -> None:
        self._snapshot.close()


class StoreRowSource:
    """Rows and dense weights of a run. ``with_tables`` says which of them are streamed, and how."""

    def __init__(self, store: Store, specs: Sequence[TableSpec], model: torch.nn.Module, run: RunInfo) -> None:
        self.store, self._specs, self._model, self._run = store, specs, model, run
        self.tables: tuple[StreamedTable, ...] = ()
        self._codecs_t: tuple[str, ...] | None = None
        self.lists_changes = not store.forgets

    def with_tables(self, codec: str, selection: Selection | None = None) -> StoreRowSource:
        """The same rows: the selected tables, each encoded by its codec, or ``codec``."""
        source = StoreRowSource(self.store, self._specs, self._model, self._run)
        source.tables = selected(self._specs, codec, selection or {})
        codecs = {table.spec.name: table.codec for table in source.tables}
        inline = all(find_codec(name).kind is not None for name in codecs.values())
        source._codecs_t = tuple(codecs.get(spec.name, "fp32") for spec in self._specs) if inline else None
        return source

    def at_fence(self, call: Callable[[int], Result]) -> Result:
        return self.store.fence.at(lambda: call(self.store.fence.step))

    def freeze(self, changed: ChangedIds | Literal["all", "changed"], *, changed_since: int) -> StoreRowSnapshot:
        """All rows updated after step ``changed_since`` are covered; which of them are read is the streamer's choice."""
        if changed == "all":
            return self._freeze_all("snapshot cut")
        resumed = self._run.resumed
        if resumed is not None and changed_since < resumed.step:
            # Rows of a checkpoint have the versions of older generations, which are all below this one's.
            return self._freeze_all("cut")
        since = pack_version(self._run.generation, changed_since)
        ids: Any = "all" if changed == "changed" else {}
        snapshot = self.store.freeze(ids, changed_since=since, blocking=False, reason="cut")
        return StoreRowSnapshot(snapshot, self._codecs_t)

    def _freeze_all(self, reason: str) -> StoreRowSnapshot:
        return StoreRowSnapshot(self.store.freeze("all", blocking=False, reason=reason), self._codecs_t)

    def dense(self) -> dict[str, Any]:
        return dense_arrays(self._model)
