"""Each sabotage of streams in shards is caught, and without one the same checks pass."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from pipeline.replica import DamagedCut, Replica, ReplicaError
from pipeline.rows.sharding import split_by_shard
from tests.replica import shards as trainers
from tests.replica.shards import LateTransport, ShardedTrainer, Shares
from tests.replica.trainer import assert_equal, assert_shows
from tests.sabotage.shards import READING, WRITING
from tests.stream.sharded_life import live_in_shards_and_check

PROBES = range(40)
LIVES = range(6)


class Walk:
    """A replica of two shards, checked after each event."""

    def __init__(self) -> None:
        self.trainer = ShardedTrainer({"item": 4, "user": 3}, 2)
        self.transports = [LateTransport(batch=100), LateTransport(batch=100)]
        self.begin()
        self.replica = Replica(self.transports)  # type: ignore[arg-type]

    def begin(self) -> None:
        for transport, header in zip(self.transports, self.trainer.headers(), strict=True):
            transport.begin(header)

    def train(self, shift: int) -> Shares:
        self.trainer.update({"item": list(range(shift, shift + 20)), "user": [1, 2, shift]})
        self.trainer.forget("item", [shift + 1])
        return self.trainer.cut_shares()

    def publish(self, shares: Shares) -> None:
        for transport, share in zip(self.transports, shares, strict=True):
            transport.publish(share)

    def show(self) -> None:
        for transport in self.transports:
            transport.deliver_all()
        self.replica.apply_available()
        assert_equal(self.replica, self.trainer, PROBES)

    def run(self) -> None:
        self.wait_for_each_shard()
        self.pass_over_what_one_shard_has()
        self.pass_over_a_replaced_trainer()
        self.begin_late()
        self.refuse_rows_of_other_shards()

    def wait_for_each_shard(self) -> None:
        for first in (0, 1):
            before = self.replica.position
            self.publish(self.train(first))
            self.transports[first].deliver_all()
            self.replica.apply_available()
            with self.replica.view() as view:
                assert_shows(view, self.trainer, before, PROBES)
            self.show()

    def pass_over_what_one_shard_has(self) -> None:
        self.trainer.update({"item": [5, 6, 7, 8]})
        self.transports[0].publish(self.trainer.cut_shares(outcome="failed")[0])
        self.publish(self.train(3))
        self.show()

    def pass_over_a_replaced_trainer(self) -> None:
        zombie = self.trainer.zombie()
        self.trainer.next_generation()
        self.begin()
        zombie.update({"item": [1, 2, 3, 4]})
        self.publish(zombie.cut_shares())
        self.show()
        self.publish(self.train(4))
        self.show()

    def begin_late(self) -> None:
        """One shard was trimmed to the snapshot cut, and comes late; the other one was not. Both have cuts between its frames."""
        start = len(self.transports[1].frames)
        self.publish(self.train(6))
        everything = self.trainer.snapshot_shares()
        self.publish([share[:1] for share in everything])
        self.publish(self.train(7))
        self.publish([share[1:] for share in everything])
        self.publish(self.train(8))
        self.show()
        self.transports[1].trim(start)
        self.transports[1].seen = start
        late = Replica(self.transports)  # type: ignore[arg-type]
        late.apply_available()
        self.transports[1].deliver_all()
        late.apply_available()
        assert_equal(late, self.trainer, PROBES)
        late.close()

    def refuse_rows_of_other_shards(self) -> None:
        with patch.object(trainers, "split_by_shard", lambda *args: split_by_shard(*args)[::-1]):
            self.publish(self.train(9))
        with pytest.raises(DamagedCut, match="belong to other shards"):
            self.show()


def live() -> None:
    for seed in LIVES:
        live_in_shards_and_check(seed)


def test_the_walk_passes() -> None:
    Walk().run()


@pytest.mark.parametrize("name", READING)
def test_a_sabotage_of_a_reader_is_caught(name: str) -> None:
    with READING[name](), pytest.raises((AssertionError, KeyError, ReplicaError, pytest.fail.Exception)):
        Walk().run()


@pytest.mark.parametrize("name", WRITING)
def test_a_sabotage_of_a_writer_is_caught(name: str) -> None:
    """``tests/stream/test_sharded.py`` lives the same lives without one."""
    with WRITING[name](), pytest.raises(AssertionError):
        live()
