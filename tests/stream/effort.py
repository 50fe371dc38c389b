"""A random life of a best-effort stream over a transport that fails, and what must hold in it. Raises AssertionError where it does not.

After every cut that a replica applies: each row that the cut carries is the source's row at that step; no row of the replica goes back;
rows that differ from the source are among those that the commit frame says wait, and changed no earlier than it says; the end of a step is
told once, when nothing of it waits any more. At the end the replica is the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.rows.version import MAX_STEP
from pipeline.stream.best_effort import BestEffortStreamer
from pipeline.stream.budget import Effort
from pipeline.stream.options import StreamerOptions, StreamIdentity
from pipeline.stream.scored import ScoredIds
from pipeline.wire import CommitFrame, TableRows, TransportError, decode_frame
from tests.stream.broken_transport import FAILURES, BrokenTransport
from tests.stream.dict_replica import DictReplica
from tests.stream.memory_source import Int64s, MemorySource

IDS = (-(1 << 63), (1 << 63) - 1, -1, 0, *range(1, 60))
TABLES = ("users", "items")
SECOND = 1_000_000_000


@dataclass
class Clock:
    now_ns: int = 1000 * SECOND

    def __call__(self) -> int:
        return self.now_ns

    def pass_s(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND)


class CheckedReplica(DictReplica):
    """Hears each frame as it appears; ``source`` is what it must agree with."""

    def __init__(self, source: MemorySource) -> None:
        super().__init__()
        self.source = source
        self.commits: list[CommitFrame] = []
        self.sent: dict[tuple[str, int], int] = {}
        """The step of the last cut that said anything of a row."""
        self.whole_step = 0
        """That of the last snapshot cut."""

    def _apply_rows(self, part: TableRows) -> int:
        self.sent |= dict.fromkeys(
            ((part.table, row_id) for row_id in (*part.ids_n.tolist(), *part.tombstones_m.tolist())), self.making
        )
        return super()._apply_rows(part)

    def hear(self, data: bytes) -> None:
        before = {name: dict(rows) for name, rows in self.tables.items()}
        frame = decode_frame(data, header=self.header)
        self.making = frame.step if isinstance(frame, CommitFrame) else 0
        if self.feed(data):
            assert isinstance(frame, CommitFrame)
            self.whole_step = frame.step if frame.snapshot else self.whole_step
            self.commits.append(frame)
            self.check(before, frame)
        elif isinstance(frame, CommitFrame):
            assert frame.position <= self.position, "a commit was passed over"

    def check(self, before: Mapping[str, Mapping[int, tuple[bytes, int]]], commit: CommitFrame) -> None:
        truth = self.source.history[commit.step]
        different, oldest = 0, MAX_STEP
        for name, rows in self.tables.items():
            for row_id in {*rows, *truth[name]}:
                mine, right = rows.get(row_id), truth[name].get(row_id)
                was = before.get(name, {}).get(row_id)
                if mine != was:
                    assert mine == right, "a row is not the source's at the step of its cut"
                if mine is not None and was is not None:
                    assert mine[1] >= was[1], "a row went back"
                if mine != right:
                    different += 1
                    oldest = min(oldest, self.first_change(name, row_id, mine))
        if commit.snapshot or commit.end:
            assert not different
            return
        assert commit.unsent is not None
        assert different <= commit.unsent
        if commit.oldest_step is None:
            assert not different
            assert commit.unsent == 0
        else:
            assert commit.oldest_step <= oldest
        assert all(step <= commit.step for step, _ in self.ended)
        told = max((step for step, _ in self.ended), default=0)
        assert told < oldest, "a step was told of which something waits"

    def first_change(self, table: str, row_id: int, mine: tuple[bytes, int] | None) -> int:
        """The first step behind what the replica was told whose row differs from what it has."""
        since = max(self.sent.get((table, row_id), 0), self.whole_step)
        later = (s for s in range(since, self.step + 1) if self.source.history[s][table].get(row_id) != mine)
        return next(later)


class EffortLife:
    """``budget``, in bytes per second, and ``max_age_s`` of the stream."""

    def __init__(self, seed: int, budget: float, max_age_s: float = 1.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.clock = Clock()
        self.source = MemorySource(seed=seed, encodes=bool(seed % 2))
        self.replica = CheckedReplica(self.source)
        self.transport = BrokenTransport(self.replica.hear)
        options = StreamerOptions(chunk_rows=7, backlog_bytes=1 << 20)
        self.streamer = BestEffortStreamer(
            self.source,
            self.transport,
            StreamIdentity("run", "trainer", 1),
            options,
            effort=Effort(budget, max_age_s),
            clock=self.clock,
        )
        self.streamer.open()
        self.lost_answers = 0
        """Cuts that replicas have and the streamer does not know of: what they told is told again."""
        self.source.on_step = self.tell

    def tell(self, step: int, ids: Mapping[str, Int64s]) -> None:
        starts = np.cumsum([0, *map(len, ids.values())], dtype=np.int64)
        changes_u = self.rng.exponential(0.1, int(starts[-1])).astype(np.float32)
        told = ScoredIds(tuple(ids), np.concatenate(list(ids.values())), starts, None, changes_u, step)
        self.streamer.add(step, self.clock(), told)

    def train(self) -> None:
        self.clock.pass_s(float(self.rng.exponential(0.02)))
        ids, forget = {}, {}
        for table in TABLES:
            ids[table] = self.rng.choice(IDS, self.rng.integers(0, 15)).tolist()
            if self.rng.random() < 0.2:
                forget[table] = [k for k in self.rng.choice(IDS, 3).tolist() if k not in ids[table]]
        self.source.train(ids, forget)

    def cut(self) -> None:
        self.clock.pass_s(0.01)
        self.streamer.cut()

    def cut_while_training(self) -> None:
        self.source.on_read = self.train_and_compact
        self.cut()
        self.source.on_read = lambda: None

    def train_and_compact(self) -> None:
        self.train()
        self.streamer.changed.compact()

    def cut_that_fails(self) -> None:
        failure = self.transport.next_failure = FAILURES[int(self.rng.integers(len(FAILURES)))]
        try:
            self.cut()
        except (TransportError, OSError):
            assert self.streamer.is_behind
            self.lost_answers += failure == "answer"
        self.transport.next_failure = None

    def cut_that_is_lost(self) -> None:
        self.source.lost_reads, self.source.reads_before_loss = 1, int(self.rng.integers(3))
        self.cut()
        self.source.lost_reads = self.source.reads_before_loss = 0

    def collapse(self) -> None:
        with self.streamer.changed._lock:
            if self.streamer.changed._told:
                self.streamer.changed._collapse()

    def live(self, events: int) -> None:
        acts = (
            self.train,
            self.train,
            self.train,
            self.cut,
            self.cut,
            self.cut_while_training,
            self.cut_that_fails,
            self.cut_that_is_lost,
            self.streamer.changed.compact,
        )
        for _ in range(events):
            if self.rng.random() < 0.04:
                self.streamer.snapshot_cut()
            elif self.rng.random() < 0.03:
                self.collapse()
            else:
                acts[int(self.rng.integers(len(acts)))]()

    def finish(self) -> None:
        self.train()
        self.streamer.finish()
        assert self.replica.tables == self.source.state
        assert self.replica.step == self.source.step
        steps = [step for step, _ in self.replica.ended]
        assert sorted(set(steps)) == list(range(1, self.source.step + 1)), "the end of a step was never told"
        assert self.lost_answers or len(steps) == len(set(steps)), "the end of a step was told twice"
        late = DictReplica()
        for _ in range(2):
            late.read_again()
            for data in self.transport.held:
                late.feed(data)
        assert late.tables == self.source.state
        assert self.streamer.changed.count == 0
        assert not self.streamer.is_behind
        assert all(snapshot.closed for snapshot in self.source.snapshots)
