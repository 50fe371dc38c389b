"""Small ways to break streams in shards, where they are written and where they are read. ``test_shards.py`` catches each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any
from unittest.mock import patch

from pipeline.replica import intake
from pipeline.replica.intake import Intake
from pipeline.replica.joined import JoinedCut, join_cut
from pipeline.replica.joining import Join
from pipeline.replica.shard import ShardReader
from pipeline.stream import journal, published, sharded
from pipeline.stream.journal import Journal
from pipeline.wire.frames import CutPosition


def split_by_another_hash() -> AbstractContextManager[Any]:
    """On one side."""

    def by_remainder(table: str, ids_n: Any, num_shards: int) -> list[Any]:
        del table
        return [ids_n[ids_n % num_shards == shard] for shard in range(num_shards)]

    return patch.object(sharded, "split_by_shard", by_remainder)


def expect_another_hash() -> AbstractContextManager[Any]:
    """On the other side."""
    return patch.object(intake, "count_elsewhere", lambda _table, ids_n, n, shard: int((ids_n % n != shard).sum()))


def leave_rows_where_they_do_not_belong() -> AbstractContextManager[Any]:
    """Rows of a shard with a hash of its own pass unseen."""
    return patch.object(Intake, "_check_shard", lambda *_: None)


def forget_a_shard_in_the_tail() -> AbstractContextManager[Any]:
    tail = Journal.tail

    def of_one(self: Journal) -> Any:
        return tail(Journal(self._transports[:1]))

    return patch.object(Journal, "tail", of_one)


def forget_a_shard_in_a_rewind() -> AbstractContextManager[Any]:
    published = Journal.published_since

    def of_one(self: Journal, step: int) -> Any:
        return published(Journal(self._transports[:1]), step)

    return patch.object(Journal, "published_since", of_one)


def take_a_rewind_of_one_shard_for_done() -> AbstractContextManager[Any]:
    since = published.published_since
    return patch.object(journal, "published_since", lambda parts, step, _newest: since(parts, step))


def commit_though_a_shard_failed() -> AbstractContextManager[Any]:
    def whatever(calls: Sequence[Callable[[], Any]]) -> list[Any]:
        made = []
        for call in calls:
            with suppress(OSError):
                made.append(call())
        return made or [calls[0]()]

    return patch.object(sharded, "side_by_side", whatever)


def forget_the_dense_weights() -> AbstractContextManager[Any]:
    write = sharded.ShardsWriter._write_shares
    return patch.object(
        sharded.ShardsWriter,
        "_write_shares",
        lambda self, builder, rows, ids, _dense, ended_k2: write(self, builder, rows, ids, None, ended_k2),
    )


def retain_one_shard_too_late() -> AbstractContextManager[Any]:
    retain = sharded.Outlets.retain_from

    def forget_more(self: sharded.Outlets, positions: Any) -> None:
        retain(self, positions)
        last = self.each[-1]
        last.retain_from(last.end)

    return patch.object(sharded.Outlets, "retain_from", forget_more)


@contextmanager
def apply_where_a_shard_lacks_its_commit() -> Iterator[None]:
    match = Join._match

    def hasty(self: Join, applied: CutPosition) -> JoinedCut | None:
        joined = match(self, applied)
        if joined is not None or self._waiting:
            return joined
        shares = [shard.pop_cut() for shard in self._shards if shard.cuts]
        return join_cut(shares) if shares else None

    with patch.object(Join, "_match", hasty):
        yield


def join_cuts_of_different_positions() -> AbstractContextManager[Any]:
    return patch.object(ShardReader, "drop_cuts", lambda *_: 0)


def take_what_a_replaced_trainer_publishes() -> AbstractContextManager[Any]:
    return patch.object(Intake, "_is_of_the_past", lambda *_: False)


def forget_that_a_shard_passed_a_snapshot_cut() -> AbstractContextManager[Any]:
    def wait(self: ShardReader, applied: CutPosition) -> None:
        self._drop_waiting()
        self.taken, self.intake.waiting = applied, True

    return patch.object(ShardReader, "wait_for_snapshot", wait)


def go_on_at_the_end_behind_a_snapshot_cut() -> AbstractContextManager[Any]:
    """What came between an ordinary cut and the snapshot cut of its position is passed over."""

    def go_behind(self: ShardReader, position: CutPosition) -> None:
        self._drop_waiting()
        self.intake.waiting = False
        self.taken = position

    return patch.object(ShardReader, "go_behind", go_behind)


WRITING: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        split_by_another_hash,
        forget_a_shard_in_the_tail,
        forget_a_shard_in_a_rewind,
        take_a_rewind_of_one_shard_for_done,
        commit_though_a_shard_failed,
        forget_the_dense_weights,
        retain_one_shard_too_late,
    )
}
"""Caught by lives of a stream."""
READING: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        expect_another_hash,
        leave_rows_where_they_do_not_belong,
        apply_where_a_shard_lacks_its_commit,
        join_cuts_of_different_positions,
        take_what_a_replaced_trainer_publishes,
        forget_that_a_shard_passed_a_snapshot_cut,
        go_on_at_the_end_behind_a_snapshot_cut,
    )
}
"""Caught by a replica's walk."""
