"""From frames, as a transport delivers them, to whole cuts that may be applied.

Rules.

1. Of each kind, ordinary and snapshot, at most one cut is in the making. A frame of a later cut ends an earlier one,
   which was abandoned.
2. Frames of a cut come in order of their numbers. What repeats is dropped; a gap is damage.
3. Reading may begin inside a cut whose head retention removed. Such a cut is lacking, not damaged.
4. While cuts are lacking, ordinary cuts are passed over and their places remembered, so that reading can go back to the
   one behind which a loaded snapshot cut goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.errors import DamagedFrame, NoHeader, OlderGeneration, OtherRun
from pipeline.replica.order import Verdict, judge
from pipeline.replica.staging import StagedCut
from pipeline.wire.encoding import decode_frame
from pipeline.wire.errors import FrameError
from pipeline.wire.frames import START, CommitFrame, CutPosition, DenseFrame, FrameLimits, HeaderFrame, RowsFrame
from pipeline.wire.transport import Position

MAX_PASSED = 1 << 16


@dataclass(frozen=True, slots=True)
class ReadyCut:
    """Whole and checked. Whoever applies it closes ``staged``."""

    commit: CommitFrame
    staged: StagedCut


class Intake:
    """Takes frames one by one. Not thread-safe."""

    def __init__(
        self,
        counters: ReplicaCounters,
        on_header: Callable[[str, HeaderFrame], None],
        wanted: Callable[[str], bool],
        limits: FrameLimits,
        staging_bytes: int,
    ) -> None:
        """``on_header(where, header)`` is called for each new header; it may refuse it."""
        self.header: HeaderFrame | None = None
        self.waiting = False
        """Cuts are missing: only a snapshot cut can be applied."""
        self.newest, self.newest_step = START, 0
        """The furthest cut of which a frame was seen."""
        self._counters, self._on_header, self._wanted = counters, on_header, wanted
        self._limits, self._staging_bytes = limits, staging_bytes
        self._identity: tuple[str, int, int] | None = None
        self._header_bytes = b""
        self._staged: dict[bool, StagedCut] = {}
        self._headless: dict[bool, CutPosition] = {}
        self._begun: set[bool] = set()
        self._passed: dict[CutPosition, Position] = {}

    def restart(self, *, anywhere: bool) -> None:
        """Reading goes on at another place: forget what is in the making. ``anywhere``: a header comes first there."""
        self.close()
        self._headless, self._begun, self._passed, self.waiting = {}, set(), {}, False
        if anywhere:
            self.header, self._header_bytes = None, b""

    def close(self) -> None:
        """Let staged frames go."""
        for staged in self._staged.values():
            staged.close()
        self._staged = {}

    def place_behind(self, position: CutPosition) -> Position | None:
        """Where the stream goes on behind an ordinary cut that was passed over; None when that is not known."""
        return self._passed.get(position)

    def take(self, at: Position, payload: bytes, applied: CutPosition) -> ReadyCut | None:
        """Take the frame that ends at ``at``. ``applied`` is the replica's position. Raises Refused."""
        where = str(at)
        self._counters.frames += 1
        self._counters.bytes += len(payload)
        if payload == self._header_bytes:
            return None
        try:
            frame = decode_frame(payload, self._limits, self.header)
        except FrameError as error:
            raise DamagedFrame(where, f"{error}{self._in_progress()}") from error
        if isinstance(frame, HeaderFrame):
            self._take_header(where, frame, payload)
            return None
        self._check_generation(where, frame.generation)
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
            raise OlderGeneration(where, header.generation, self.header.generation)
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

    def _check_generation(self, where: str, generation: int) -> None:
        if self.header is None or generation > self.header.generation:
            raise NoHeader(where, generation)
        if generation < self.header.generation:
            raise OlderGeneration(where, generation, self.header.generation)

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
        staged.add(where, frame, payload)

    def _is_headless(self, kind: bool, position: CutPosition, number: int) -> bool:
        """Rule 3: the first cut of its kind since reading began, and its first frames were not there."""
        if kind not in self._begun and number > 0:
            self._headless[kind] = position
        self._begun.add(kind)
        return self._headless.get(kind) == position

    def _begin(self, kind: bool, position: CutPosition) -> StagedCut:
        before = self._staged.get(kind)
        if before is not None:
            self._abandon(before)
        assert self.header is not None
        staged = StagedCut(position, kind, self.header, self._wanted, self._limits, self._staging_bytes)
        self._staged[kind] = staged
        return staged

    def _abandon(self, staged: StagedCut) -> None:
        self._counters.abandoned += 1
        staged.close()
        del self._staged[staged.snapshot]

    def _take_commit(self, where: str, at: Position, commit: CommitFrame, applied: CutPosition) -> ReadyCut | None:
        kind = commit.snapshot
        headless = self._headless.get(kind) == commit.position
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
        return ReadyCut(commit, staged)

    def _pass_over(self, at: Position, commit: CommitFrame) -> None:
        self._drop(commit)
        if commit.snapshot:
            return
        self._counters.lacking += 1
        self.waiting = True
        self._passed[commit.position] = at
        if len(self._passed) > MAX_PASSED:
            del self._passed[next(iter(self._passed))]

    def _drop(self, commit: CommitFrame) -> None:
        staged = self._staged.get(commit.snapshot)
        if staged is not None and staged.position <= commit.position:
            staged.close()
            del self._staged[commit.snapshot]

    def _in_progress(self) -> str:
        names = [f"cut {cut.position.cut} of generation {cut.position.generation}" for cut in self._staged.values()]
        return f" (in or behind {' and '.join(names)})" if names else ""
