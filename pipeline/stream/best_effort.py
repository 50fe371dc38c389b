"""A streamer for links that cannot carry everything: the rows that changed most go first, and none waits for ever.

Rules.

1. A cut carries some of what changed, all of it as it stood at the end of one step: rows that have waited for nearly ``max_age_s``,
   whatever they cost, then those with most change per byte, as far as the budget goes. The rest stays, and what it changes is added up.
2. So each row of a replica is that of some step, and never goes back; all rows together are those of no step. The header says so, and
   each commit frame how many rows wait, and since which step.
3. Snapshot cuts and the headers come on top of the budget. With a snapshot cut an ordinary one goes as ever: replicas that follow pass
   the former over.
4. ``drain`` and ``finish`` send everything, whatever it costs. So does a set that has collapsed, in its next cut.
5. What a cut left behind is not known to the process that goes on after a crash: it sends again all that changed behind ``sent_step``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pipeline.stream.budget import Budget, Effort, RowCosts
from pipeline.stream.cut import CutBuilder
from pipeline.stream.freezing import Frozen
from pipeline.stream.options import StreamerOptions, StreamIdentity
from pipeline.stream.priority import Chosen, PrioritySet
from pipeline.stream.source import RowSource
from pipeline.stream.streamer import RowStreamer
from pipeline.stream.taken import Waits
from pipeline.wire.frames import START, CommitFrame, CutPosition
from pipeline.wire.transport import Transport

NOTHING = Waits(0, None, None)


class BestEffortStreamer(RowStreamer):
    """See the module docstring. ``add`` takes ``ScoredIds``; of others the change counts as 1."""

    changed: PrioritySet
    _when_drained = NOTHING

    def __init__(
        self,
        source: RowSource,
        transport: Transport | Sequence[Transport],
        identity: StreamIdentity,
        options: StreamerOptions | None = None,
        *,
        effort: Effort,
        previous: CutPosition = START,
        previous_step: int = 0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        identity = replace(identity, best_effort=True)
        super().__init__(
            source, transport, identity, options, previous=previous, previous_step=previous_step, clock=clock
        )
        self._effort, self._budget, self._costs = effort, Budget(effort), RowCosts(source.tables)
        self._last_visit_ns: int | None = None
        self._everything = False
        self._making: CutBuilder | None = None
        self.waits = NOTHING
        """What the last choice left behind."""
        self.longest_wait_s = 0.0
        """The greatest age that any row had when a cut was made, sent or not."""

    @property
    def age_s(self) -> float:
        """Of the oldest row that waited at the last choice; 0: none did."""
        return 0.0 if self.waits.oldest_ns is None else max(0, self._clock() - self.waits.oldest_ns) / 1e9

    def drain(self) -> None:
        self._everything = True
        try:
            super().drain()
        finally:
            self._everything = False

    def _changed_set(self) -> PrioritySet:
        return PrioritySet(self.options.backlog_bytes)

    def _visit(self, freeze: Callable[[int], Frozen]) -> Frozen:
        changed = self.changed
        with changed.folding:
            frozen = self._source.at_fence(freeze)
            changed.fold(frozen.changed)
            if changed.collapsed and not frozen.changed.collapsed:  # what waits has just outgrown its memory
                frozen.close()
                frozen = self._source.at_fence(freeze)
                changed.fold(frozen.changed)
            if frozen.changed.collapsed:
                frozen.changed = changed.all_of(frozen.changed)
                return frozen
            frozen.changed = self._choose(frozen)
        return frozen

    def _choose(self, frozen: Frozen) -> Chosen:
        now = frozen.clock_ns
        self._budget.refill(now)
        due_ns = None if self._everything else now - self._patience_ns(now)
        costs = self._costs.by_table
        chosen = self.changed.choose(frozen.step, now, costs, self._budget.room, due_ns, self._tables)
        self._last_visit_ns, self.waits = now, chosen.waits
        if chosen.oldest_ns is not None:
            self.longest_wait_s = max(self.longest_wait_s, (now - chosen.oldest_ns) / 1e9)
        return chosen

    def _patience_ns(self, now_ns: int) -> int:
        """How long a row may have waited and still wait for the next cut, which will come about as late as this one."""
        longest = int(self._effort.max_age_s * 1e9)
        since = 0 if self._last_visit_ns is None else max(0, now_ns - self._last_visit_ns)
        return longest - min(2 * since, longest // 2)

    def _builder(self, position: CutPosition, frozen: Frozen, **what: Any) -> CutBuilder:
        builder, changed = super()._builder(position, frozen, **what), frozen.changed
        builder.waits = changed.waits if isinstance(changed, Chosen) and not builder.snapshot else NOTHING
        if not builder.snapshot:
            self._making = builder
        return builder

    def _publish_changed(self, frozen: Frozen) -> CommitFrame | None:
        chosen = frozen.changed if isinstance(frozen.changed, Chosen) else None
        if chosen is not None and chosen.waits.rows and not chosen.rows and frozen.everything is None:
            frozen.close()
            return None
        room, had_dense = max(self._budget.room, 0.0), frozen.dense is not None
        commit = None
        try:
            commit = super()._publish_changed(frozen)
        finally:
            assert self._making is not None
            self._budget.spend(self._making.num_bytes)
            if commit is None and chosen is not None:
                self.waits = replace(chosen.waits, rows=chosen.waits.rows + chosen.num_rows, oldest_ns=chosen.oldest_ns)
        if commit is not None:
            if chosen is None or chosen.due_cost > room:
                self.counters.add(over_budget_bytes=max(0, int(self._making.num_bytes - room)))
            if chosen is not None and not had_dense:
                counts = {name: len(rows.ids_n) for name, rows in chosen.rows.items()}
                self._costs.learn(counts, self._making.num_bytes)
        return commit

    def _committed(self, builder: CutBuilder, frozen: Frozen) -> None:
        super()._committed(builder, frozen)
        self.oldest_step = None if builder.waits is None else builder.waits.oldest_step
        if not isinstance(frozen.changed, Chosen):
            self.waits = NOTHING
