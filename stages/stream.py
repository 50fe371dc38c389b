"""stream: publish cuts of the changed rows, beside training.

The fence tells the changed set which rows each step touched; this stage only decides when to cut. Cuts run on a lane of their own and
nothing waits for them but the end of the run, so a slow disk costs no training time: ids wait, never rows. A transport that fails is
tried again (``stream_publishing``); at the end of the run for ``drain_timeout``, and what is left then is written down.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pipeline.files import Files
from pipeline.flow import Marker, Stage, StageContext
from pipeline.flow.run_info import RunInfo
from pipeline.store import Expired, Store
from pipeline.stream import (
    CutPolicy,
    Journal,
    StreamIdentity,
    warm_up,
)
from stages.cut_lanes import CutLanes
from stages.errors import StreamAhead
from stages.items import Stepped
from stages.steps import StepSignal, wait_at_most, wait_for_either
from stages.stream_effort import tell, told_ids
from stages.stream_options import StreamOptions
from stages.stream_publishing import Publishing
from stages.stream_resume import StreamResume
from stages.stream_shards import check_taken

FINAL_REASONS = ("end", "limit", "interrupt")
WRITER = "trainer"


class Stream(Stage):
    """Publishes every changed row in cuts; after the last step it publishes what is left."""

    Options = StreamOptions
    consumes = Stepped
    produces = Stepped
    needs = {
        "store": Store,
        "row_source": object,
        "run": RunInfo,
        "stream_report": dict,
        "table_names": tuple,
        "files": object,
        "say": object,
    }

    async def open(self, context: StageContext) -> None:
        self._run: RunInfo = context.resources["run"]
        self._tables: tuple[str, ...] = context.resources["table_names"]
        self._report: dict[str, Any] = context.resources["stream_report"]
        self._store: Store = context.resources["store"]
        self._files: Files = context.resources["files"]
        self._say: Callable[[str], None] = context.resources["say"]
        self._source = context.resources["row_source"].with_tables(self.options.codec, self.options.tables)
        self._streamed = tuple(table.spec.name for table in self._source.tables)
        self._all = self._streamed == self._tables
        self._lane = context.lane(
            "stream_snapshot"
        )  # of all that is no cut: opening, the proof, snapshot cuts, closing
        cut_lane = context.lane("stream")
        self._cut_lanes = (
            CutLanes(cut_lane, context.lane("stream_late")) if self.options.gives_way else CutLanes(None, cut_lane)
        )
        self._compact_lane = context.lane("stream_compact")
        self._every = CutPolicy.parse(self.options.every)
        self._snapshots = None if self.options.snapshot_every is None else CutPolicy.parse(self.options.snapshot_every)
        self._loop = asyncio.get_running_loop()
        self._proved, self._frozen, self._snapshots_over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        await self._lane.run(self._make_stream)
        await self._publishing.open(self._lane.run, context.stopping)
        if self._resume is None:
            self._proved.set()
        elif not self._resume.can_prove:
            self._report["proof"] = self._resume.proof
            self._proved.set()
        else:
            context.spawn(self._prove_on, "proof of the resumed stream")
        self._store.on_step(self._at_fence)
        self._store.on_expired(self._on_expired)
        self._signal, self._snapshot_signal = StepSignal(self._store), StepSignal(self._store)
        context.spawn(self._cut_on, "cuts")
        if self._snapshots is not None:
            context.spawn(self._snapshot_on, "snapshot cuts")
        close_lane = context.lane("stream_close")
        context.spawn(lambda: self._publishing.watch(close_lane.run), "end of the stream")

    def _make_stream(self) -> None:
        """Touches nothing yet. Raises TransportError where a key is no good."""
        warm_up()
        self._resume: StreamResume | None = None
        self._places, self._is_ours = self.options.open_places(self._run, self.options.shards, self._files), False
        transports = self._places.transports
        self._journal = Journal(transports)
        continues = max((fork.generation for fork in self._run.forks), default=0)
        identity = StreamIdentity(self._run.run_id, WRITER, self._run.generation, continues=continues)
        self._streamer = self.options.make_streamer(self._source, transports, identity, self.options.streamer_options())
        self._store.changes.wanted = self.options.freshness == "best_effort"
        self._publishing = Publishing(
            self.options,
            self._streamer,
            transports,
            self._begin_stream,
            self._report,
            self._run,
            self._files,
            self._say,
        )
        self._ending = self._publishing.ending

    def _begin_stream(self) -> None:
        """On a lane. Raises StreamTaken, ShardsChanged, SelectionChanged, and what the transport raises."""
        if not self._is_ours:
            run_id = None if self._run.resumed is None else self._run.run_id
            check_taken(self._places, run_id, self._source.tables)
            self._is_ours = True
        self._streamer.open()  # before the last cut is looked for: what a trainer before this one adds from here on, nobody takes
        resume = self._resume = self._find_resume()
        if resume is not None:
            self._streamer.committed, self._streamer.committed_step = resume.position, resume.step
            self._streamer.oldest_step = resume.oldest_step
            self._streamer.adopt_dictionary(resume.dictionary)
            self._streamer.wants_everything |= resume.wants_everything
            self._begin_again(resume)

    def _find_resume(self) -> StreamResume | None:
        if self._run.resumed is None:
            return None
        return StreamResume(self._journal.tail(), self._run.resumed, self._run.forks, forgets=self._store.forgets)

    def _begin_again(self, resume: StreamResume) -> None:
        """Before the first step. On the lane."""
        if resume.rewinds:
            commit = self._streamer.rewind(resume.rewound(self._journal))
            self._report["rewind"] = {"step": commit.step, "rows": commit.num_rows, "withdrawn": commit.num_tombstones}
            self._resume = None  # from here on all is new
            return
        at = self._store.fence.step
        if at > resume.sent_step:
            unpublished = resume.unpublished(self._journal, self._store.tier.holds)
            self._streamer.add(at, resume.oldest_ns or time.time_ns(), unpublished)
        if at == resume.step and resume.can_prove:
            self._store.fence.at(self._freeze_proof)

    def _freeze_proof(self) -> None:
        assert self._resume is not None
        self._resume.freeze(self._store, self._source.dense() if self._resume.carried_dense else {})
        self._loop.call_soon_threadsafe(self._frozen.set)

    async def _prove_on(self) -> None:
        assert self._resume is not None
        await wait_for_either(self._frozen, self._ending)
        if self._frozen.is_set():
            await self._lane.run(self._resume.prove)
            self._report["proof"] = self._resume.proof
            self._proved.set()

    def _at_fence(self, step: int, plan: Any) -> None:
        """Inside the fence, on the compute lane: references only."""
        resume = self._resume
        if resume is not None and step == resume.step and resume.can_prove:
            self._freeze_proof()
        if resume is not None and step <= resume.sent_step:
            return  # published by the process before
        if plan is None:
            self._streamer.add(step, time.time_ns(), {}, 0)
        else:
            selected = None if self._all else self._streamed
            ids = told_ids(self._store, self._tables, selected, plan, step)
            self._streamer.add(step, time.time_ns(), ids, plan.unique.count if self._all else None)

    def _on_expired(self, step: int, expired: Expired) -> None:
        """Inside the fence, before ``_at_fence`` of the same step."""
        if self._resume is None or step > self._resume.sent_step:
            gone = {self._tables[number]: ids_x for number, ids_x in expired.by_table()}
            self._streamer.forget({table: ids_x for table, ids_x in gone.items() if table in self._streamed})

    async def process(self, item: Stepped) -> Stepped:
        if self._streamer.changed.crowded:
            await self._compact_lane.run(self._streamer.changed.compact)
        return item

    async def _cut_on(self) -> None:
        """Cut whenever the policy says so, until the last marker."""
        await self._repeat(self._every, self._signal, self._cut)

    async def _snapshot_on(self) -> None:
        assert self._snapshots is not None
        await self._repeat(self._snapshots, self._snapshot_signal, self._snapshot_cut)
        self._snapshots_over.set()

    async def _repeat(self, policy: CutPolicy, signal: StepSignal, cut: Callable[[], Awaitable[None]]) -> None:
        await wait_for_either(self._proved, self._ending)
        last, step = time.monotonic(), self._store.fence.step
        while await self._until_due(policy, signal, last, step):
            last, step = time.monotonic(), self._store.fence.step
            await cut()

    async def _until_due(self, policy: CutPolicy, signal: StepSignal, last: float, step: int) -> bool:
        """Wait until a cut is due, the last one having been made at time ``last`` behind ``step``; False when the run ends first."""
        quiet_s, _ = policy.due_in_s(time.monotonic() - last)
        if quiet_s:
            await wait_at_most(self._ending, quiet_s)
        seen = self._store.fence.step
        while not self._ending.is_set():
            signal.clear()
            now, waited_s = self._store.fence.step, time.monotonic() - last
            left_s = self._left_behind_s(policy, waited_s)
            if policy.is_due(now - step, waited_s, now > seen) or left_s <= 0:
                return True
            _, patience_s = policy.due_in_s(waited_s)
            most_s = min(left_s, math.inf if now == step or patience_s is None else patience_s)
            await signal.wait(most_s if most_s < math.inf else None)
        return False

    def _left_behind_s(self, policy: CutPolicy, waited_s: float) -> float:
        """For how long rows that a cut has left behind may wait for the next one, whether steps end or not."""
        patience_s = self.options.patience_s
        if patience_s is None or policy is not self._every or not self._streamer.changed.num_waiting:
            return math.inf
        return float(patience_s - waited_s)

    async def _cut(self) -> None:
        await self._publishing.persist(self._cut_lanes.run, self._streamer.cut)

    async def _snapshot_cut(self) -> None:
        await self._publishing.persist(self._lane.run, self._streamer.snapshot_cut)

    async def mark(self, marker: Marker) -> None:
        """Behind the last step: publish what is left, the last batch included. Before that, no checkpoint behind what was published
        passes without the proof.
        """
        if marker.reason not in FINAL_REASONS:
            if self._resume is not None and marker.attachments.get("step", 0) > self._resume.step:
                await self._proved.wait()
            return
        if self._resume is not None and self._store.fence.step < self._resume.step:
            if marker.reason == "interrupt":
                self._ending.set()
                self._snapshot_signal.wake()
                return  # the next process goes on from here; what is published stays as it is
            raise StreamAhead(self._resume.step, self._store.fence.step)
        await self._proved.wait()
        self._ending.set()
        self._signal.wake()
        if self._snapshots is not None:
            self._snapshot_signal.wake()
            await self._snapshots_over.wait()
        await self._publishing.finish(self._cut_lanes.prompt.run)  # nothing trains any more
        await self._compact_lane.run(self._publishing.settle)

    async def close(self, _error: BaseException | None) -> None:
        if hasattr(self, "_streamer"):
            self._report.update(self._streamer.counters.as_dict())
            self._report["late_cuts"] = self._cut_lanes.late
            self._report["unpublished_rows"] = self._streamer.changed.count
            self._report["untimed_steps"] = self._streamer.changed.untimed_steps
            self._report["collapses"] = self._streamer.changed.collapses
            tell(self._streamer, self._report)
            await self._lane.run(self._publishing.close)
