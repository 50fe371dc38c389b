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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.errors import NoStartingPoint, ReplicaClosed, ReplicaError, ReplicaFailed, StepFell
from pipeline.replica.export import export_table
from pipeline.replica.freshness import Freshness
from pipeline.replica.intake import Intake
from pipeline.replica.joined import JoinedCut
from pipeline.replica.joining import Join, OnHeader
from pipeline.replica.order import goes_back
from pipeline.replica.sources import StreamPlace
from pipeline.replica.tables import Tables
from pipeline.replica.view import View
from pipeline.replica.warm import warm_up
from pipeline.wire.frames import DEFAULT_LIMITS, START, CutPosition, FrameLimits, HeaderFrame
from pipeline.wire.transport import Transport

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
        source: str | os.PathLike[str] | Transport | Sequence[Transport],
        *,
        tables: Iterable[str] | None = None,
        pinned_bytes: int = PINNED_BYTES,
        staging_bytes: int = STAGING_BYTES,
        limits: FrameLimits = DEFAULT_LIMITS,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """``source``: a run directory, a directory of segments or of shards, a transport, or those of all shards in order, which stay
        the caller's. It need not exist yet.

        ``tables``: hold these alone. ``pinned_bytes``: old rows kept for views. ``staging_bytes``: a cut that is longer
        waits for its commit frame in a temporary file; all shards together.
        """
        self.counters = ReplicaCounters()
        self.freshness = Freshness(clock())
        self.ended = False
        """The last applied cut carries the end mark of a run."""
        self._clock = clock
        self._place = StreamPlace(source)
        self._tables = Tables(pinned_bytes, None if tables is None else frozenset(tables))
        self._limits, self._staging_bytes = limits, staging_bytes
        self._join: Join | None = None
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
    def table_shapes(self) -> dict[str, tuple[int, int]]:
        """(rows held, weights of a row) of each table."""
        return {name: (table.rows.count, table.spec.dim) for name, table in self._tables.by_name.items()}

    @property
    def lookups(self) -> int:
        """Rows that views were asked for."""
        return self._tables.lookups

    @property
    def lag(self) -> Lag:
        state, join = self._tables.state, self._join
        newest, newest_step = (START, 0) if join is None else join.newest
        same = newest.generation == state.position.generation
        behind = newest.cut - (state.position.cut if same else 0)
        age_s = (self._clock() - state.clock_ns) / 1e9 if state.clock_ns else float("nan")
        return Lag(max(behind, 0), max(newest_step - state.step, 0), age_s, join is not None and join.waiting)

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
            join = self._open()
            if join is None or not join.receive(timeout_s):
                return None
            count = 0
            while (cut := self._next_cut(join)) is not None:
                self._apply(cut)
                count += 1
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
        if self.lag.waiting:
            raise NoStartingPoint(self._place.name)

    def check_end(self) -> None:
        """Raises StreamCorrupt where the stream ends in a torn frame that nobody will complete. What is held is a whole cut."""
        with self._applying:
            if self._join is not None:
                self._join.check_end()

    def export(self, table: str, path: str | os.PathLike[str]) -> None:
        """Write one table as it stands to an npz: ``ids`` rising, ``weights`` [n, dim], ``version`` [n, 2]. Raises
        UnknownTable, ViewExpired, ExportFailed, DiskFull.
        """
        with self.view() as view:
            export_table(view, table, os.fspath(path))

    def close(self) -> None:
        """Free everything; ends views and a ``follow`` in another thread. May be called twice."""
        self._closed = True
        if self._join is not None:
            self._join.end_waiting()
        with self._applying:
            if self._join is not None:
                self._join.close()
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

    def _open(self) -> Join | None:
        """None while there is no stream."""
        transports = None if self._join is not None else self._place.find()
        if transports is not None:
            self._join = Join(transports, self._make_intake, self._describe, self.counters, self._staging_bytes)
        return self._join

    def _make_intake(self, on_header: OnHeader) -> Intake:
        return Intake(self.counters, on_header, self._tables.wants, self._limits, self._staging_bytes)

    def _next_cut(self, join: Join) -> JoinedCut | None:
        try:
            cut = join.next_cut(self.position)
            if cut is not None:
                self._check_step(cut)
        except ReplicaError as refusal:
            self.counters.refusals += 1
            self._refusal = refusal
            join.close()
            raise
        return cut

    def _check_step(self, cut: JoinedCut) -> None:
        commit, state = cut.commit, self._tables.state
        if goes_back(state.position, state.step, commit):
            cut.close()
            raise StepFell(str(cut.places[0]), commit.position, commit.step, state.position, state.step)

    def _apply(self, cut: JoinedCut) -> None:
        commit = cut.commit
        try:
            self.counters.rows_forgotten += self._tables.apply(commit, cut)
        except BaseException as error:
            self._failure = ReplicaFailed(commit.position, error)
            self._tables.settled.set()
            raise self._failure from error
        finally:
            cut.close()
        self.freshness.add(commit.ended_k2[:, 1], self._clock())
        self.counters.rows += commit.num_rows
        self.counters.cuts += not commit.snapshot
        self.counters.snapshot_cuts += commit.snapshot
        self.counters.expired_views = self._tables.undo.expired
        self.ended = commit.end

    def _describe(self, where: str, header: HeaderFrame) -> None:
        self._tables.describe(where, header)
