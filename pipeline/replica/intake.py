"""From frames, as a transport delivers them, to whole cuts that may be applied.

Rules.

1. Of each kind, ordinary and snapshot, at most one cut is in the making. A frame of a later cut ends an earlier one,
   which was abandoned.
2. Frames of a cut come in order of their numbers. What repeats is dropped; a gap is damage.
3. Reading may begin inside a cut whose head retention removed. Such a cut is lacking, not damaged.
4. While cuts are lacking, ordinary cuts are passed over and their places remembered, so that reading can go back to the
   one behind which a loaded snapshot cut goes on.
5. What comes of an older generation behind the header of a newer one was published by a trainer that was replaced and does not
   know it yet: it is counted and dropped, header frames included. Of a generation without a header nothing is taken.
6. A row that another shard carries is damage: its writer has another idea of who carries what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.cuts import ShardPlace
from pipeline.replica.errors import DamagedCut, DamagedFrame, NoHeader, OtherRun
from pipeline.replica.order import Verdict, judge
from pipeline.replica.staging import Stage, StagedCut
from pipeline.rows.sharding import count_elsewhere
from pipeline.wire.errors import FrameError
from pipeline.wire.frames import START, CommitFrame, CutPosition, DenseFrame, FrameLimits, HeaderFrame, RowsFrame
from pipeline.wire.reading import FrameReader
from pipeline.wire.transport import Position

MAX_PASSED = 1 << 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading may go on, with the header that describes what comes there."""

    at: Position
    header: HeaderFrame
    header_bytes: bytes

    @property
    def kept(self) -> ShardPlace:
        """As it outlives the process."""
        return ShardPlace(self.header.epoch, self.at, self.header_bytes)


@dataclass(frozen=True, slots=True)
class ReadyCut:
    """Whole and checked, of one shard. Whoever applies it closes ``staged``."""

    commit: CommitFrame
    staged: StagedCut
    place: Place
    """Behind the commit frame."""


class Intake:
    """Takes frames one by one. Not thread-safe."""

    def __init__(
        self,
        counters: ReplicaCounters,
        on_header: Callable[[str, HeaderFrame], None],
        wanted: Callable[[str], bool],
        limits: FrameLimits,
        stage: Stage,
    ) -> None:
        """``on_header(where, header)`` is called for each new header; it may refuse it."""
        self.stage = stage
        """What the next cut may take in memory."""
        self.header: HeaderFrame | None = None
        self.waiting = False
        """Cuts are missing: only a snapshot cut can be applied."""
        self.newest, self.newest_step = START, 0
        """The furthest cut of which a frame was seen."""
        self._counters, self._on_header, self._wanted = counters, on_header, wanted
        self._limits = limits
        self._reader = FrameReader(limits)
        self._identity: tuple[str, int, int] | None = None
        self._header_bytes = b""
        self._staged: dict[bool, StagedCut] = {}
        self._headless: dict[bool, CutPosition] = {}
        self._begun: set[bool] = set()
        self._passed: dict[CutPosition, Place] = {}

    def restart(self, place: Place | None) -> None:
        """Reading goes on at another place: forget what is in the making. None: where a header comes first."""
        self.close()
        self._headless, self._begun, self._passed, self.waiting = {}, set(), {}, False
        self.header = None if place is None else place.header
        self._reader = FrameReader(self._limits, self.header)
        self._header_bytes = b"" if place is None else place.header_bytes

    def begin_from(self, header: bytes) -> HeaderFrame:
        """Take a header that an earlier life had, as if it came first. Raises Refused."""
        self.restart(None)
        try:
            frame = self._reader.read(header)
        except FrameError as error:
            raise DamagedFrame("kept header", str(error)) from error
        assert isinstance(frame, HeaderFrame)
        self._take_header("kept header", frame, header)
        return frame

    def close(self) -> None:
        """Let staged frames go."""
        for staged in self._staged.values():
            staged.close()
        self._staged = {}

    def place_behind(self, position: CutPosition) -> Place | None:
        """Where the stream goes on behind an ordinary cut that was passed over; None when that is not known."""
        return self._passed.get(position)

    def take(self, at: Position, where: str, payload: bytes, applied: CutPosition) -> ReadyCut | None:
        """Take the frame that ends at ``at``, which errors call ``where``. ``applied`` is the last cut that was applied, or waits to be.
        Raises Refused.
        """
        self._counters.frames += 1
        self._counters.bytes += len(payload)
        if payload == self._header_bytes:
            return None
        try:
            frame = self._reader.read(payload)
        except FrameError as error:
            raise DamagedFrame(where, f"{error}{self._in_progress()}") from error
        if isinstance(frame, HeaderFrame):
            self._take_header(where, frame, payload)
            return None
        if self._is_of_the_past(where, frame.generation):
            return None
        if frame.position > self.newest:
            self.newest, self.newest_step = frame.position, frame.step
        if isinstance(frame, CommitFrame):
            return self._take_commit(where, at, frame, applied)
        self._take_piece(where, frame, payload, applied)
        return None

    def _take_header(self, where: str, header: HeaderFrame, payload: bytes) -> None:
        identity = (header.run_id, header.shard, header.num_shards)
        if self._identity is not None and identity != self._identity:
            found, expected = (f"run {run}, shard {k} of {n}" for run, k, n in (identity, self._identity))
            raise OtherRun(where, found, expected)
        if self.header is not None and header.generation < self.header.generation:
            self._counters.zombie_frames += 1
            return
        if self.header is not None and header.generation == self.header.generation:
            self._take_header_again(where, self.header, header)
        if self.header is not None and header.generation > self.header.generation:
            for staged in list(self._staged.values()):
                self._abandon(staged)
        self._on_header(where, header)
        self._identity, self.header, self._header_bytes = identity, header, payload

    def _take_header_again(self, where: str, before: HeaderFrame, header: HeaderFrame) -> None:
        """Within a generation a header may bring a dictionary; what it says of the rows stays."""
        brought = header.dictionary if not before.dictionary else before.dictionary
        if replace(header, epoch=before.epoch, created_ns=before.created_ns) != replace(before, dictionary=brought):
            raise DamagedFrame(where, f"a second header of generation {header.generation} is not like the first")
        for staged in self._staged.values():
            staged.header = header

    def _is_of_the_past(self, where: str, generation: int) -> bool:
        """Rule 5."""
        if self.header is None or generation > self.header.generation:
            raise NoHeader(where, generation)
        if generation == self.header.generation:
            return False
        self._counters.zombie_frames += 1
        return True

    def _take_piece(self, where: str, frame: RowsFrame | DenseFrame, payload: bytes, applied: CutPosition) -> None:
        kind, position = frame.snapshot, frame.position
        if position <= applied:
            self._counters.duplicates += not kind
            return
        staged = self._staged.get(kind)
        if staged is not None and (
            position < staged.position or (position == staged.position and frame.number < staged.num_frames)
        ):
            self._counters.duplicates += 1
            return
        if self._is_headless(kind, position, frame.number) or (self.waiting and not kind):
            return
        if staged is None or position != staged.position:
            staged = self._begin(kind, position)
        if isinstance(frame, RowsFrame):
            self._check_shard(where, frame)
        staged.add(where, frame, payload)

    def _check_shard(self, where: str, frame: RowsFrame) -> None:
        """Rule 6."""
        assert self.header is not None
        shard, num_shards = self.header.shard, self.header.num_shards
        if num_shards == 1:
            return
        for run in frame.rows:
            for ids_n in (run.ids_n, run.tombstones_m):
                count = count_elsewhere(run.table, ids_n, num_shards, shard)
                if count:
                    what = f"{count} rows of table {run.table!r} belong to other shards than {shard} of {num_shards}"
                    raise DamagedCut(where, frame.position, frame.snapshot, what)

    def _is_headless(self, kind: bool, position: CutPosition, number: int) -> bool:
        """Rule 3: the first cut of its kind since reading began, and its first frames were not there."""
        if kind not in self._begun and number > 0:
            self._headless[kind] = position
        self._begun.add(kind)
        return self._headless.get(kind) == position

    def _has_no_body(self, commit: CommitFrame) -> bool:
        """Rule 3: nothing but the commit frame of a snapshot cut was left. (An ordinary cut lacks the one before it then.)"""
        return commit.snapshot and commit.snapshot not in self._begun and commit.num_frames > 0

    def _begin(self, kind: bool, position: CutPosition) -> StagedCut:
        before = self._staged.get(kind)
        if before is not None:
            self._abandon(before)
        assert self.header is not None
        staged = StagedCut(position, kind, self.header, self._wanted, self._limits, self.stage)
        self._staged[kind] = staged
        return staged

    def _abandon(self, staged: StagedCut) -> None:
        self._counters.abandoned += 1
        staged.close()
        del self._staged[staged.snapshot]

    def _take_commit(self, where: str, at: Position, commit: CommitFrame, applied: CutPosition) -> ReadyCut | None:
        kind = commit.snapshot
        headless = self._headless.get(kind) == commit.position or self._has_no_body(commit)
        self._begun.add(kind)
        verdict = judge(applied, commit)
        if verdict is Verdict.DROP:
            self._counters.duplicates += not kind
            self._drop(commit)
            return None
        if verdict is Verdict.LACKS or headless or (self.waiting and not kind):
            self._pass_over(at, commit)
            return None
        staged = self._staged.get(kind)
        if staged is None or staged.position != commit.position:
            staged = self._begin(kind, commit.position)
        staged.check(where, commit)
        del self._staged[kind]
        return ReadyCut(commit, staged, self._place(at))

    def _pass_over(self, at: Position, commit: CommitFrame) -> None:
        self._drop(commit)
        if commit.snapshot:
            return
        self._counters.lacking += 1
        self.waiting = True
        self._passed[commit.position] = self._place(at)
        if len(self._passed) > MAX_PASSED:
            del self._passed[next(iter(self._passed))]

    def _place(self, at: Position) -> Place:
        assert self.header is not None
        return Place(at, self.header, self._header_bytes)

    def _drop(self, commit: CommitFrame) -> None:
        staged = self._staged.get(commit.snapshot)
        if staged is not None and staged.position <= commit.position:
            staged.close()
            del self._staged[commit.snapshot]

    def _in_progress(self) -> str:
        names = [f"cut {cut.position.cut} of generation {cut.position.generation}" for cut in self._staged.values()]
        return f" (in or behind {' and '.join(names)})" if names else ""
