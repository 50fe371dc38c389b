"""How a resumed run goes on with its stream: silent up to the last published step, and proof there; or, as a fork, with a rewind.

Rules.

1. Steps up to the one of the last committed cut were published: they are not added again.
2. At that step the rows of that cut must have the digest that it names, or the run stops before it publishes anything.
   Best effort: up to the one that all was published of; what changed behind it is added, and no cut is made before the last one's step.
3. A checkpoint behind that step holds rows that were never published: they are added as changed at once. There is no proof from there.
   Where nothing was published at all, these are all its rows: imported ones have versions of step 0, or of a run elsewhere.
4. So none is written before the proof: whoever writes one has published, or proven, what lies before it.
5. A fork that the stream does not show yet, be it this process's or that of one that died too soon, begins with a rewind: rows that
   were published, or that the checkpoint has, since the last step that stream and checkpoint have in common. Its step is the
   checkpoint's; from there on all is published.
6. Where rows may expire, no checkpoint tells which did, and when. So behind rule 3 all ids that the stream still names and that have no
   row are published as gone; and a rewind carries all rows, as what is gone from the stream cannot say which ones came back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.flow.run_info import Fork, ResumedFrom
from pipeline.rows.codec import find_codec
from pipeline.rows.digest import TableRuns
from pipeline.store import Snapshot, Store
from pipeline.stream import Journal, StreamTail, column_bytes
from pipeline.stream.scored import SteppedIds
from pipeline.wire import START, CutPosition, dense_digest
from pipeline.wire.digest import MASK, column_digest, tombstones_digest
from stages.errors import StreamDiverged

CHUNK_ROWS = 65_536
NO_IDS = np.empty(0, dtype=np.int64)
Holds = Callable[[str, Any], Any]
"""Which of these ids of a table have rows, bool [n]."""


class StreamResume:
    """``tail`` is None where nothing was ever committed. ``freeze`` runs inside the fence, ``prove`` on a lane."""

    def __init__(
        self, tail: StreamTail | None, resumed: ResumedFrom, forks: Sequence[Fork] = (), *, forgets: bool = False
    ) -> None:
        """``forgets``: whether rows may expire."""
        self._forgets = forgets
        self._tail, self._resumed = tail, resumed
        self.wants_everything = tail is None and bool(forks)
        """A fork whose stream is gone cannot tell what it takes back: every row is published, and replicas drop all others."""
        self._unknown = [fork.step for fork in forks if tail is not None and fork.generation > tail.commit.generation]
        self._before = -1 if tail is None and resumed.changed_after(-1) else 0
        self._rows: Snapshot | None = None
        self._dense: Mapping[str, Any] = {}

    @property
    def position(self) -> CutPosition:
        return START if self._tail is None else self._tail.commit.position

    @property
    def dictionary(self) -> bytes:
        """That of the stream so far; empty: it has none."""
        return b"" if self._tail is None else self._tail.header.dictionary

    @property
    def step(self) -> int:
        """The last published step; -1 where none is and rows of a checkpoint wait: those of an import are of step 0."""
        return self._before if self._tail is None else self._tail.commit.step

    @property
    def oldest_step(self) -> int | None:
        """The step of the oldest change that the last cut left behind: best effort. None: it left none."""
        return None if self._tail is None else self._tail.commit.oldest_step

    @property
    def oldest_ns(self) -> int | None:
        """The clock of that step's end."""
        return None if self._tail is None else self._tail.commit.oldest_ns

    @property
    def sent_step(self) -> int:
        """All that changed up to this step is published: ``step``, but where the last cut left something behind."""
        return self.step if self.oldest_step is None else min(self.step, self.oldest_step - 1)

    @property
    def can_prove(self) -> bool:
        """Whether the run will come to the end of that step, and what the cut carried is known."""
        return self._tail is not None and self._tail.whole and self._resumed.step <= self.step

    @property
    def rewinds(self) -> bool:
        """Rule 5."""
        return bool(self._unknown)

    def rewound(self, journal: Journal) -> Mapping[str, Any]:
        """Ids by table of what a rewind carries. On a lane."""
        common = -1 if self._forgets else min(self.sent_step, *self._unknown)
        published, held = journal.published_since(common), self._resumed.changed_after(common)
        return {
            table: np.union1d(published.get(table, NO_IDS), held.get(table, NO_IDS)) for table in {*published, *held}
        }

    @property
    def carried_dense(self) -> bool:
        """Whether the dense weights rode in that cut."""
        return self._tail is not None and self._tail.shown.dense_digest is not None

    @property
    def proof(self) -> str:
        """What can be proven, for the report."""
        if self.can_prove:
            return f"the rows of step {self.step} are those that were published"
        if self._tail is None or self._resumed.step > self.step:
            return f"none: the checkpoint (step {self._resumed.step}) lies behind the last published step ({max(self.step, 0)})"
        if self._tail.alone:
            return f"none: the cut of step {self.step} is a snapshot cut that stands alone"
        return f"none: the cut of step {self.step} is not whole in the stream any more"

    def unpublished(self, journal: Journal, holds: Holds) -> Mapping[str, Any]:
        """Ids by table, and since which step they may have changed, of the checkpoint's rows that no cut has carried, and of those that no
        cut has said are gone.
        """
        changed = SteppedIds(self._resumed.changed_after(self.sent_step), self.sent_step + 1)
        if not self._forgets or self._tail is None:
            return changed
        named = journal.published_since(-1)
        gone = {table: ids_n[~holds(table, ids_n)] for table, ids_n in named.items()}
        all_named = {
            table: np.concatenate([changed.get(table, NO_IDS), gone.get(table, NO_IDS)]) for table in {*changed, *gone}
        }
        return SteppedIds(all_named, changed.step)

    def freeze(self, store: Store, dense: Mapping[str, Any]) -> None:
        """At the end of ``step``."""
        assert self._tail is not None
        ids, dead = self._tail.ids, self._tail.dead
        named = {name: np.concatenate([ids.get(name, NO_IDS), dead.get(name, NO_IDS)]) for name in {*ids, *dead}}
        self._rows = store.freeze(named, blocking=True, reason="proof")
        self._dense = dense

    def prove(self) -> None:
        """Raises StreamDiverged."""
        tail, rows = self._tail, self._rows
        assert tail is not None
        assert rows is not None
        shown = tail.shown
        with rows:
            digest = sum(self._digest(rows, table, ids_n) for table, ids_n in tail.ids.items())
            digest = (digest + sum(self._dead(rows, table, ids_n) for table, ids_n in tail.dead.items())) & MASK
        if digest != shown.digest:
            what = f"the rows of cut {tuple(shown.position)} have the digest {digest:016x}, it says {shown.digest:016x}"
            raise StreamDiverged(self.step, self._resumed.step, what)
        if shown.dense_digest is not None and dense_digest(self._dense) != shown.dense_digest:
            raise StreamDiverged(self.step, self._resumed.step, "the dense weights differ")

    def _digest(self, rows: Snapshot, table: str, ids_n: Any) -> int:
        assert self._tail is not None
        streamed = self._tail.header.table(table)
        total, codec, layout = 0, find_codec(streamed.codec), streamed.spec.layout
        for start in range(0, len(ids_n), CHUNK_ROWS):
            some = np.ascontiguousarray(ids_n[start : start + CHUNK_ROWS])
            read = rows.read(table, some)
            weights_nd = layout.singles(read.rows_nb, layout.columns[0].name)
            runs = TableRuns((table,), (0, len(some)), some, read.versions_n)
            total += codec.encode_hashed(weights_nd, runs)[1]
            for name in streamed.carries:
                total += column_digest(table, name, some, column_bytes(streamed, name, read.rows_nb), read.versions_n)
        return total

    def _dead(self, rows: Snapshot, table: str, ids_n: Any) -> int:
        for start in range(0, len(ids_n), CHUNK_ROWS):
            some = np.ascontiguousarray(ids_n[start : start + CHUNK_ROWS])
            held_n = rows.read(table, some).held_n
            if held_n.any():
                raise StreamDiverged(
                    self.step, self._resumed.step, f"row {some[held_n][0]} of table {table!r} is not gone"
                )
        return tombstones_digest(table, ids_n)
