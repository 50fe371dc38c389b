"""How a resumed run goes on with its stream: silent up to the last published step, and proof there.

Rules.

1. Steps up to the one of the last committed cut were published: they are not added again.
2. At that step the rows of that cut must have the digest that it names, or the run stops before it publishes anything.
3. A checkpoint behind that step holds rows that were never published: they are added as changed at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.flow.run_info import ResumedFrom
from pipeline.rows.codec import find_codec
from pipeline.rows.digest import TableRuns
from pipeline.store import Snapshot, Store
from pipeline.stream import StreamTail
from pipeline.wire import START, CutPosition, dense_digest
from pipeline.wire.digest import MASK
from stages.errors import StreamDiverged

CHUNK_ROWS = 65_536


class StreamResume:
    """``tail`` is None where nothing was ever committed. ``freeze`` runs inside the fence, ``prove`` on a lane."""

    def __init__(self, tail: StreamTail | None, resumed: ResumedFrom) -> None:
        self._tail, self._resumed = tail, resumed
        self._rows: Snapshot | None = None
        self._dense: Mapping[str, Any] = {}

    @property
    def position(self) -> CutPosition:
        return START if self._tail is None else self._tail.commit.position

    @property
    def step(self) -> int:
        """The last published step."""
        return 0 if self._tail is None else self._tail.commit.step

    @property
    def can_prove(self) -> bool:
        """Whether the run will come to the end of that step, and what the cut carried is known."""
        return self._tail is not None and self._tail.whole and not self._tail.dead and self._resumed.step <= self.step

    @property
    def carried_dense(self) -> bool:
        """Whether the dense weights rode in that cut."""
        return self._tail is not None and self._tail.commit.dense_digest is not None

    @property
    def proof(self) -> str:
        """What can be proven, for the report."""
        if self.can_prove:
            return f"the rows of step {self.step} are those that were published"
        if self._tail is None or self._resumed.step > self.step:
            return f"none: the checkpoint (step {self._resumed.step}) lies behind the last published step ({self.step})"
        return f"none: the cut of step {self.step} is not whole in the stream any more, or forgets rows"

    def unpublished(self) -> Mapping[str, Any]:
        """Ids by table of the checkpoint's rows that no cut has carried."""
        return self._resumed.changed_after(self.step)

    def freeze(self, store: Store, dense: Mapping[str, Any]) -> None:
        """At the end of ``step``."""
        assert self._tail is not None
        self._rows = store.freeze(dict(self._tail.ids), blocking=True, reason="proof")
        self._dense = dense

    def prove(self) -> None:
        """Raises StreamDiverged."""
        tail, rows = self._tail, self._rows
        assert tail is not None
        assert rows is not None
        with rows:
            digest = sum(self._digest(rows, table, ids_n) for table, ids_n in tail.ids.items()) & MASK
        if digest != tail.commit.digest:
            what = f"the rows of cut {tuple(tail.commit.position)} have the digest {digest:016x}, it says {tail.commit.digest:016x}"
            raise StreamDiverged(self.step, what)
        if tail.commit.dense_digest is not None and dense_digest(self._dense) != tail.commit.dense_digest:
            raise StreamDiverged(self.step, "the dense weights differ")

    def _digest(self, rows: Snapshot, table: str, ids_n: Any) -> int:
        assert self._tail is not None
        streamed = self._tail.header.table(table)
        total, codec, dim = 0, find_codec(streamed.codec), streamed.spec.dim
        for start in range(0, len(ids_n), CHUNK_ROWS):
            some = np.ascontiguousarray(ids_n[start : start + CHUNK_ROWS])
            read = rows.read(table, some)
            weights_nd = read.rows_nb[:, : 4 * dim].view(np.float32)
            runs = TableRuns((table,), (0, len(some)), some, read.versions_n)
            total += codec.encode_hashed(weights_nd, runs)[1]
        return total
