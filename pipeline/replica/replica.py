"""The replica: follows a stream, applies whole cuts in order, answers lookups.

    from pipeline.replica import Replica

    with Replica("runs/quickstart") as replica:
        replica.apply_available()
        with replica.view() as view:
            weights = view.lookup("item", [1, 2, 3])

One thread at a time applies (``apply_available``, ``follow``); any number of threads open views and look up meanwhile.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from pipeline.replica.applier import Applier
from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.errors import NoStartingPoint
from pipeline.replica.export import export_table
from pipeline.replica.freshness import Freshness
from pipeline.replica.from_checkpoint import cut_of_checkpoint, find_checkpoint
from pipeline.replica.replay import Replay
from pipeline.replica.retained import RetainedCut, SeenStream, choose_cut
from pipeline.replica.sources import StreamPlace
from pipeline.replica.staging import Stage
from pipeline.replica.targets.choose import MEMORY, open_target
from pipeline.replica.targets.target import Target
from pipeline.replica.view import View
from pipeline.replica.warm import warm_up
from pipeline.rows.codec import RowCodec, load_codecs
from pipeline.wire.frames import DEFAULT_LIMITS, CutPosition, FrameLimits
from pipeline.wire.transport import Transport

PINNED_BYTES = 256 << 20
STAGE_BYTES = 256 << 20
COMMIT_EVERY_S = 1.0
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
    unsent: int | None = None
    """Of a best-effort stream, where a cut is no step of the trainer: changed rows that the applied cut left behind. None: an exact one."""
    unsent_s: float = 0.0
    """The age of the oldest of these changes."""
    ahead: int = 0
    """By how many steps what is held is ahead of the trainer, which comes there again: its stream was lost while it was down."""


class Replica:
    """See the module docstring. Holds rows in memory: 4 bytes a weight, and about 32 bytes a row."""

    def __init__(
        self,
        source: str | os.PathLike[str] | Transport | Sequence[Transport],
        *,
        path: str | os.PathLike[str] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        target: str | Target = MEMORY,
        tables: Iterable[str] | None = None,
        pinned_bytes: int = PINNED_BYTES,
        stage_bytes: int = STAGE_BYTES,
        stage_dir: str | os.PathLike[str] | None = None,
        commit_every_s: float = COMMIT_EVERY_S,
        limits: FrameLimits = DEFAULT_LIMITS,
        codecs: Iterable[str | RowCodec] = (),
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """``source``: a run directory, a directory of segments or of shards, a transport, or those of all shards in order, which stay
        the caller's. It need not exist yet.

        ``path``: a directory for rows and position; the next replica with it goes on where this one was. ``target``: ``memory``, or
        ``rowlog``: rows on disk, in ``path``, alone. Or rows go elsewhere and nothing is looked up here: ``redis``, its URL,
        ``package.module:Class``, or a ``Target`` (``notice`` says what its readers see).

        ``checkpoint``: begin with the rows of one of the trainer's (its directory, or that of its run), where ``path`` holds nothing yet.
        The stream must be there. Raises NoCutForCheckpoint, CheckpointOfOther.

        ``tables``: hold these alone. ``pinned_bytes``: old rows kept for views. ``stage_bytes``: a cut that is longer
        waits for its commit frame in a temporary file, in ``stage_dir`` (None: the system's). ``codecs``: what the stream uses besides the
        built-in ones, itself or as ``package.module:CODEC``.
        """
        load_codecs(codecs)
        self.counters = ReplicaCounters()
        self.freshness = Freshness(clock())
        self._clock = clock
        self._place = StreamPlace(source)
        wanted = None if tables is None else frozenset(tables)
        self._held = open_target(target, path, pinned_bytes, wanted, limits)
        self._limits = limits
        self._stage = stage = Stage(stage_bytes, None if stage_dir is None else os.fspath(stage_dir))
        self._applier = Applier(
            self._held, self._place, self.counters, self.freshness, clock, limits, stage, commit_every_s
        )
        try:
            if not self._applier.restore() and checkpoint is not None:
                self._begin_with(os.fspath(checkpoint))
        except BaseException:
            self._held.close()
            raise

    def _begin_with(self, checkpoint: str) -> None:
        seen = SeenStream.of(self._place.require(), self._limits)
        cut = cut_of_checkpoint(find_checkpoint(checkpoint), seen, self._held.wants)
        for header in seen.headers:
            if header is not None:
                self._held.describe("newest header", header)
        self._applier.begin_with(cut)

    @property
    def position(self) -> CutPosition:
        """The last applied cut; (0, 0) before the first."""
        return self._held.state.applied.position

    @property
    def durable_position(self) -> CutPosition:
        """The last cut that a restart would not apply again: with ``path``, the last that is durable."""
        return self._applier.durable.position

    @property
    def step(self) -> int:
        """The step of the trainer at whose end the replica stands (of a best-effort stream: where each row is of this step, or waits to
        be). It falls only where a fork begins.
        """
        return self._held.state.applied.step

    @property
    def ended(self) -> bool:
        """The last applied cut carries the end mark of a run."""
        return self._held.state.applied.ended

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables held; none before the first header frame."""
        return self._held.names

    def columns(self, table: str) -> tuple[str, ...]:
        """Names of the columns that ride along beside the weights of a table. Raises UnknownTable."""
        return tuple(self._held.table(table).carried.columns)

    @property
    def num_rows(self) -> int:
        """Rows held, all tables."""
        return self._held.num_rows

    @property
    def table_shapes(self) -> dict[str, tuple[int, int]]:
        """(rows held, weights of a row) of each table."""
        tables = {name: self._held.table(name) for name in self._held.names}
        return {name: (table.rows.count, table.spec.dim) for name, table in tables.items()}

    @property
    def pinned_views(self) -> int:
        """Views that are open."""
        return self._held.pinned_views

    @property
    def lookups(self) -> int:
        """Rows that views were asked for."""
        return self._held.lookups

    @property
    def lag(self) -> Lag:
        applied = self._held.state.applied
        newest, newest_step = self._applier.newest
        same = newest.generation == applied.position.generation
        behind = newest.cut - (applied.position.cut if same else 0)
        age_s = (self._clock() - applied.clock_ns) / 1e9 if applied.clock_ns else math.nan
        unsent_s = 0.0 if applied.oldest_ns is None else max(0, self._clock() - applied.oldest_ns) / 1e9
        steps = max(newest_step - applied.step, 0)
        ahead = 0 if applied.ahead_by is None else max(applied.step - newest_step, 0)
        return Lag(max(behind, 0), steps, age_s, self._applier.waiting, applied.unsent, unsent_s, ahead)

    def freshness_ms(self) -> dict[str, float | int | None]:
        """``p50``, ``p99``, ``max`` in milliseconds over ``steps`` steps; None before the first."""
        return self.freshness.as_dict()

    def view(self) -> View:
        """Pin the last applied cut. Close the view soon. Raises ReplicaClosed, ReplicaFailed."""
        return self._held.open_view(self._applier.check_alive)

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
        return self._applier.advance(timeout_s)

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
                if self._place.awaited() is None:
                    stop.wait(WAIT_S)

    def retained(self) -> list[RetainedCut]:
        """The cuts that ``rollback`` can go to, in the order of the stream. Reads the stream once. Raises StreamAbsent."""
        return list(SeenStream.of(self._place.require(), self._limits).retained())

    def rollback(self, position: CutPosition | None = None, *, step: int | None = None) -> None:
        """Go to the cut at ``position``, or to the newest of at most ``step``, and stay there until ``resume``.

        It is read anew from the newest snapshot cut at or below it: readers see that one, then each cut up to the one asked for. Raises
        NotRetained (``retained`` lists what there is), RetainedGone, and as ``apply_available`` does.
        """
        transports = self._place.require()
        seen = SeenStream.of(transports, self._limits)
        target = choose_cut(list(seen.retained()), position, step)
        replay = Replay(transports, seen, self._held.describe, self._held.wants, self._limits, self._stage)
        self._applier.go_to(lambda: replay.cuts(target))

    def resume(self) -> None:
        """Apply the cuts behind the one that ``rollback`` went to."""
        self._applier.resume()

    @property
    def notice(self) -> str | None:
        """What its users should know of where rows go; None where views give one step."""
        return self._held.notice

    @property
    def stays(self) -> bool:
        """Whether it stays at the cut that ``rollback`` went to."""
        return self._applier.stays

    def require_start(self) -> None:
        """Raises StreamAbsent where there is no stream, NoStartingPoint where it cannot be joined yet."""
        self._place.require()
        if self.lag.waiting:
            raise NoStartingPoint(self._place.name)

    def check_end(self) -> None:
        """Raises StreamCorrupt where the stream ends in a torn frame that nobody will complete. What is held is a whole cut."""
        self._applier.check_end()

    def export(self, table: str, path: str | os.PathLike[str]) -> None:
        """Write one table as it stands to an npz: ``ids`` rising, ``weights`` [n, dim], ``version`` [n, 2]. Raises
        UnknownTable, ViewExpired, ExportFailed, DiskFull.
        """
        with self.view() as view:
            export_table(view, table, os.fspath(path))

    def close(self) -> None:
        """Free everything; ends views and a ``follow`` in another thread. May be called twice."""
        try:
            self._applier.close()
        finally:
            self._place.close()

    def __enter__(self) -> Replica:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
