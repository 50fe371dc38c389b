"""The replica: follows a stream, applies whole cuts in order, answers lookups.

    from pipeline.replica import Replica

    with Replica("runs/quickstart") as replica:
        replica.apply_available()
        with replica.view() as view:
            weights = view.lookup("item", [1, 2, 3])

One thread at a time applies (``apply_available``, ``follow``); any number of threads open views and look up meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.errors import NoStartingPoint, ReplicaClosed, ReplicaError, ReplicaFailed, StepFell
from pipeline.replica.export import export_table
from pipeline.replica.freshness import Freshness
from pipeline.replica.intake import Intake, ReadyCut
from pipeline.replica.order import goes_back
from pipeline.replica.sources import StreamPlace
from pipeline.replica.tables import Tables
from pipeline.replica.view import View
from pipeline.replica.warm import warm_up
from pipeline.wire.errors import StreamTrimmed
from pipeline.wire.frames import DEFAULT_LIMITS, CutPosition, FrameLimits, HeaderFrame
from pipeline.wire.transport import Position, Subscription, Transport

PINNED_BYTES = 256 << 20
STAGING_BYTES = 256 << 20
WAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind the replica is, as far as it knows."""

    cuts: int
    """Cuts of which a frame was seen, behind the applied one."""
    steps: int
    age_s: float
    """Since the trainer took the applied cut; NaN before the first."""
    waiting: bool
    """Cuts are missing: it waits for a snapshot cut."""


class Replica:
    """See the module docstring. Holds rows in memory: 4 bytes a weight, and about 32 bytes a row."""

    def __init__(
        self,
        source: str | os.PathLike[str] | Transport,
        *,
        tables: Iterable[str] | None = None,
        pinned_bytes: int = PINNED_BYTES,
        staging_bytes: int = STAGING_BYTES,
        limits: FrameLimits = DEFAULT_LIMITS,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """``source``: a run directory, a directory of segments, or a transport, which stays the caller's. It need not
        exist yet.

        ``tables``: hold these alone. ``pinned_bytes``: old rows kept for views. ``staging_bytes``: a cut that is longer
        waits for its commit frame in a temporary file.
        """
        self.counters = ReplicaCounters()
        self.freshness = Freshness(clock())
        self.ended = False
        """The last applied cut carries the end mark of a run."""
        self._clock = clock
        self._place = StreamPlace(source)
        self._tables = Tables(pinned_bytes, None if tables is None else frozenset(tables))
        self._intake = Intake(self.counters, self._describe, self._tables.wants, limits, staging_bytes)
        self._subscription: Subscription | None = None
        self._go_back: tuple[Position | None] | None = None
        self._applying = threading.Lock()
        self._refusal: ReplicaError | None = None
        self._failure: ReplicaFailed | None = None
        self._closed = False

    @property
    def position(self) -> CutPosition:
        """The last applied cut; (0, 0) before the first."""
        return self._tables.state.position

    @property
    def step(self) -> int:
        """The step of the trainer at whose end the replica stands. It falls only where a fork begins."""
        return self._tables.state.step

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables held; none before the first header frame."""
        return tuple(self._tables.by_name)

    @property
    def num_rows(self) -> int:
        """Rows held, all tables."""
        return self._tables.num_rows

    @property
    def lookups(self) -> int:
        """Rows that views were asked for."""
        return self._tables.lookups

    @property
    def lag(self) -> Lag:
        state, intake = self._tables.state, self._intake
        same = intake.newest.generation == state.position.generation
        behind = intake.newest.cut - (state.position.cut if same else 0)
        age_s = (self._clock() - state.clock_ns) / 1e9 if state.clock_ns else float("nan")
        return Lag(max(behind, 0), max(intake.newest_step - state.step, 0), age_s, intake.waiting)

    def freshness_ms(self) -> dict[str, float | int | None]:
        """``p50``, ``p99``, ``max`` in milliseconds over ``steps`` steps; None before the first."""
        return self.freshness.as_dict()

    def view(self) -> View:
        """Pin the last applied cut. Close the view soon. Raises ReplicaClosed, ReplicaFailed."""
        while True:
            with self._tables.lock.write:
                self._check_alive()
                if self._tables.undo.is_open:
                    view = View(self._tables, self._tables.state, self._check_alive)
                    self._tables.undo.pin(self._tables.state.serial, view)
                    return view
            self._tables.settled.wait()

    def apply_available(self) -> int:
        """Apply every whole cut that is there; returns how many. Blocks no longer than that takes.

        Raises Refused (again at each further call: the replica stays at its last cut) and what the transport raises.
        """
        count = 0
        while (applied := self.advance(0)) is not None:
            count += applied
        return count

    def advance(self, timeout_s: float) -> int | None:
        """Take the next batch of frames, waiting up to ``timeout_s`` for it; returns how many cuts were applied, None
        when no frame came. Raises as ``apply_available`` does.
        """
        with self._applying:
            self._check_alive()
            if self._refusal is not None:
                raise self._refusal
            frames = self._next(timeout_s)
            if frames is None:
                return None
            count = 0
            for at, payload in frames:
                count += self._take(at, payload)
                if self._go_back is not None:
                    self._resubscribe(*self._go_back)
                    break
            return count

    def follow(
        self,
        stop: threading.Event,
        *,
        until_end: bool = False,
        on_progress: Callable[[], None] | None = None,
    ) -> None:
        """Apply cuts as they come until ``stop`` is set, or, with ``until_end``, until the run has ended and all is
        applied.

        ``on_progress`` is called after each batch of frames and every 50 ms. Raises as ``apply_available`` does.
        """
        warm_up()
        while not stop.is_set():
            applied = self.advance(WAIT_S)
            if on_progress is not None:
                on_progress()
            if applied is None:
                if until_end and self.ended:
                    return
                if self._place.find() is None:
                    stop.wait(WAIT_S)

    def require_start(self) -> None:
        """Raises StreamAbsent where there is no stream, NoStartingPoint where it cannot be joined yet."""
        self._place.require()
        if self._intake.waiting:
            raise NoStartingPoint(self._place.name)

    def check_end(self) -> None:
        """Raises StreamCorrupt where the stream ends in a torn frame that nobody will complete. What is held is a whole cut."""
        with self._applying:
            if self._subscription is not None:
                self._subscription.check_end()

    def export(self, table: str, path: str | os.PathLike[str]) -> None:
        """Write one table as it stands to an npz: ``ids`` rising, ``weights`` [n, dim], ``version`` [n, 2]. Raises
        UnknownTable, ViewExpired, ExportFailed, DiskFull.
        """
        with self.view() as view:
            export_table(view, table, os.fspath(path))

    def close(self) -> None:
        """Free everything; ends views and a ``follow`` in another thread. May be called twice."""
        self._closed = True
        if self._subscription is not None:
            self._subscription.close()
        with self._applying:
            self._intake.close()
            self._place.close()

    def __enter__(self) -> Replica:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise ReplicaClosed("the replica was closed")

    def _next(self, timeout_s: float) -> list[tuple[Position, bytes]] | None:
        if self._subscription is None:
            transport = self._place.find()
            if transport is None:
                return None
            self._subscription = transport.subscribe(None)
        try:
            return self._subscription.next(timeout_s)
        except StreamTrimmed:
            # Retention overtook this replica. What is left holds a snapshot cut, or soon will.
            self._resubscribe(None)
            return []

    def _resubscribe(self, position: Position | None) -> None:
        assert self._subscription is not None
        self._subscription.close()
        self._subscription = self._place.require().subscribe(position)
        self._intake.restart(anywhere=position is None)
        self._go_back = None
        self.counters.rescans += 1

    def _take(self, at: Position, payload: bytes) -> int:
        try:
            ready = self._intake.take(at, payload, self.position)
            if ready is not None:
                self._check_step(str(at), ready)
        except ReplicaError as refusal:
            self.counters.refusals += 1
            self._refusal = refusal
            self._intake.close()
            raise
        if ready is None:
            return 0
        self._apply(ready)
        return 1

    def _check_step(self, where: str, ready: ReadyCut) -> None:
        commit, state = ready.commit, self._tables.state
        if goes_back(state.position, state.step, commit):
            ready.staged.close()
            raise StepFell(where, commit.position, commit.step, state.position, state.step)

    def _apply(self, ready: ReadyCut) -> None:
        commit, was_waiting = ready.commit, self._intake.waiting
        try:
            self.counters.rows_forgotten += self._tables.apply(commit, ready.staged)
        except BaseException as error:
            self._failure = ReplicaFailed(commit.position, error)
            self._tables.settled.set()
            raise self._failure from error
        finally:
            ready.staged.close()
        self.freshness.add(commit.ended_k2[:, 1], self._clock())
        self.counters.rows += commit.num_rows
        self.counters.cuts += not commit.snapshot
        self.counters.snapshot_cuts += commit.snapshot
        self.counters.expired_views = self._tables.undo.expired
        self.ended = commit.end
        if commit.snapshot:
            self._go_back = (self._intake.place_behind(commit.position),) if was_waiting else None

    def _describe(self, where: str, header: HeaderFrame) -> None:
        self._tables.describe(where, header)
