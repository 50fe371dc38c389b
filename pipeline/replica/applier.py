"""Takes whole cuts from the joined shards of a stream and applies them, in order, to what is held.

Rules.

1. A cut is applied (it can be looked up), then kept (written, where rows outlive the process); what was kept is committed (made
   durable) every so often, by its end, and when the replica is closed.
2. A refusal (a frame that must not be taken) and a disk that fails stop it at the cut before; every further call raises the same. Views
   go on. A failure half-way through a cut ends the views too.
3. A replica that was sent to a cut (``go_to``) stays there until ``resume``.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable

from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.cuts import Applied, Cut
from pipeline.replica.errors import NotKept, ReplicaClosed, ReplicaError, ReplicaFailed, StepFell
from pipeline.replica.freshness import Freshness
from pipeline.replica.held import Held
from pipeline.replica.intake import Intake
from pipeline.replica.joined import JoinedCut
from pipeline.replica.joining import Join, OnHeader
from pipeline.replica.order import goes_back, says_nothing_new
from pipeline.replica.sources import StreamPlace
from pipeline.replica.staging import Stage
from pipeline.wire.frames import START, CutPosition, FrameLimits


class Applier:
    """See the module docstring. One thread at a time; ``close`` may come from any."""

    def __init__(
        self,
        held: Held,
        place: StreamPlace,
        counters: ReplicaCounters,
        freshness: Freshness,
        clock: Callable[[], int],
        limits: FrameLimits,
        stage: Stage,
        commit_every_s: float,
    ) -> None:
        self.durable = Applied()
        """The last cut that was committed."""
        self._held, self._place, self._limits, self._stage = held, place, limits, stage
        self._counters, self._freshness, self._clock = counters, freshness, clock
        self._commit_every_s, self._next_commit = commit_every_s, -math.inf
        self._join: Join | None = None
        self._begin = Applied()
        self._busy = threading.Lock()
        self._going = threading.Event()
        self._going.set()
        self._refusal: ReplicaError | None = None
        self._failure: ReplicaFailed | None = None
        self._closed = False

    @property
    def newest(self) -> tuple[CutPosition, int]:
        """The furthest cut of which a frame was seen, and its step."""
        join = self._join
        return (START, 0) if join is None else join.newest

    @property
    def waiting(self) -> bool:
        """Cuts are missing: only a snapshot cut can be applied."""
        join = self._join
        return join is not None and join.waiting

    @property
    def stays(self) -> bool:
        """Whether it was sent to a cut and stays there."""
        return not self._going.is_set()

    def restore(self) -> bool:
        """Take up an earlier life, if there was one. Once, before anything is applied."""
        applied = self._held.restore()
        if applied is not None:
            self.durable = applied
            self._begin_behind(applied)
        return applied is not None

    def begin_with(self, cut: Cut) -> None:
        """Apply what no frames brought, and go on behind it."""
        with self._busy:
            self.check_alive()
            self.apply(cut)
            self._begin_behind(cut.applied)
            self._commit()

    def advance(self, timeout_s: float) -> int | None:
        """See ``Replica.advance``."""
        with self._busy:
            self.check_alive()
            if self._refusal is not None:
                raise self._refusal
            if self.stays and not self._going.wait(timeout_s):
                return None
            join = self._open()
            count = None
            if join is not None and join.receive(timeout_s):
                count = 0
                while (cut := self._next_cut(join)) is not None:
                    self._apply_joined(join, cut)
                    count += 1
            self._commit_when_due()
            return count

    def go_to(self, cuts: Callable[[], Iterable[Cut]]) -> None:
        """Apply the cuts that lead to another one, and stay there."""
        with self._busy:
            self.check_alive()
            if isinstance(self._refusal, NotKept):
                raise self._refusal
            try:
                for cut in cuts():
                    self.apply(cut)
            finally:
                # Wherever it came to is a cut.
                self._begin_behind(self._held.state.applied)
            self._refusal = None
            self._going.clear()
            self._commit()

    def resume(self) -> None:
        """Go on behind the cut that ``go_to`` went to."""
        self._going.set()

    def apply(self, cut: Cut) -> None:
        """Apply one cut, and keep it. Raises ReplicaFailed, NotKept."""
        try:
            self._counters.rows_forgotten += self._held.apply(cut)
        except BaseException as error:
            self._failure = ReplicaFailed(cut.applied.position, error)
            self._held.fail()
            raise self._failure from error
        self._counters.expired_views = self._held.expired_views
        self._durably(lambda: self._held.keep(cut))

    def check_end(self) -> None:
        with self._busy:
            if self._join is not None:
                self._join.check_end()

    def check_alive(self) -> None:
        """Raises ReplicaFailed, ReplicaClosed."""
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise ReplicaClosed("the replica was closed")

    def close(self) -> None:
        """Commit what was kept, and free everything. May be called twice. Raises NotKept."""
        was_closed, self._closed = self._closed, True
        if self._join is not None:
            self._join.end_waiting()
        with self._busy:
            if self._join is not None:
                self._join.close()
            try:
                if not was_closed and self._failure is None and not isinstance(self._refusal, NotKept):
                    self._commit()
            finally:
                self._held.close()

    def _begin_behind(self, applied: Applied) -> None:
        join, self._join = self._join, None
        if join is not None:
            join.close()
        self._begin = applied

    def _open(self) -> Join | None:
        """None while there is no stream."""
        transports = None if self._join is not None else self._place.find()
        if transports is not None:
            self._join = Join(
                transports, self._make_intake, self._held.describe, self._counters, self._stage.nbytes, self._begin
            )
        return self._join

    def _make_intake(self, on_header: OnHeader) -> Intake:
        return Intake(self._counters, on_header, self._held.wants, self._limits, self._stage)

    def _next_cut(self, join: Join) -> JoinedCut | None:
        try:
            cut = join.next_cut(self._held.state.applied.position)
            if cut is not None:
                self._check_step(cut)
        except ReplicaError as refusal:
            self._counters.refusals += 1
            self._refusal = refusal
            join.close()
            raise
        return cut

    def _check_step(self, cut: JoinedCut) -> None:
        commit, applied = cut.commit, self._held.state.applied
        if self._is_old(cut):
            return
        if goes_back(applied.position, applied.step, commit):
            cut.close()
            raise StepFell(cut.where, commit.position, commit.step, applied.position, applied.step)

    def _is_old(self, cut: JoinedCut) -> bool:
        return says_nothing_new(self._held.state.applied, cut.commit, cut.header)

    def _apply_joined(self, join: Join, joined: JoinedCut) -> None:
        commit, places = joined.commit, join.places_behind(joined)
        try:
            if self._is_old(joined):
                self.apply(joined.passed_over(places, self._held.state.applied))
                self._counters.passed_over += 1
                return
            self.apply(joined.cut(places))
        finally:
            joined.close()
        self._freshness.add(commit.ended_k2[:, 1], self._clock())
        self._counters.rows += commit.num_rows
        self._counters.cuts += not commit.snapshot
        self._counters.snapshot_cuts += commit.snapshot

    def _commit_when_due(self) -> None:
        if self._held.state.applied is self.durable:
            return
        if self._held.state.applied.ended or time.monotonic() >= self._next_commit:
            self._commit()

    def _commit(self) -> None:
        self._durably(self._commit_now)
        self._next_commit = time.monotonic() + self._commit_every_s

    def _commit_now(self) -> None:
        self.durable = self._held.commit() or self._held.state.applied

    def _durably(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            self._refusal = NotKept(self.durable.position, error)
            raise self._refusal from error
