"""A shard that is ahead of the others waits for them, and takes no more memory than it may."""

from __future__ import annotations

import pytest

from pipeline.replica import OtherRun, OtherShard, Replica
from pipeline.replica.shard import MAX_AHEAD
from tests.replica.shards import LateTransport, ShardedTrainer
from tests.replica.trainer import assert_equal

CUTS = 3 * MAX_AHEAD


def published(cuts: int = CUTS, dense: int = 0) -> tuple[ShardedTrainer, list[LateTransport]]:
    """Each share is one rows frame, or none, and its commit frame; ``dense`` numbers ride in frames of eight."""
    trainer = ShardedTrainer({"item": 4}, 2)
    trainer.dense = {"w": trainer.rng.normal(size=dense)} if dense else None
    transports = [LateTransport(batch=1000) for _ in range(2)]
    for transport, header in zip(transports, trainer.headers(), strict=True):
        transport.begin(header)
    for number in range(cuts):
        trainer.update({"item": range(number, number + 20)})
        for transport, share in zip(transports, trainer.cut_shares(chunk=100), strict=True):
            transport.publish(share)
    return trainer, transports


@pytest.mark.parametrize(("stage_bytes", "most"), [(1 << 20, MAX_AHEAD), (4000, 9), (0, 1)])
@pytest.mark.parametrize("ahead", [0, 1])
def test_no_more_is_read_of_a_shard_that_is_far_ahead(ahead: int, stage_bytes: int, most: int) -> None:
    """However much of it has come at once; and when the other one comes, all is applied."""
    trainer, transports = published()
    transports[ahead].deliver_all()
    transports[1 - ahead].deliver(1)
    with Replica(transports, stage_bytes=stage_bytes) as replica:  # type: ignore[arg-type]
        for _ in range(3):
            assert replica.apply_available() == 0
            assert 3 <= replica.counters.frames <= 2 * most + 3
        transports[1 - ahead].deliver_all()
        assert replica.apply_available() == CUTS
        assert_equal(replica, trainer)


def test_dense_weights_of_cuts_that_wait_count_too() -> None:
    trainer, transports = published(40, dense=80)
    transports[0].deliver_all()
    transports[1].deliver(1)
    with Replica(transports, stage_bytes=20_000) as replica:  # type: ignore[arg-type]
        assert replica.apply_available() == 0
        assert replica.counters.frames <= 12 * (10_000 // 640) + 3, "of each cut 640 bytes and its rows"
        transports[1].deliver_all()
        assert replica.apply_available() == 40
        assert_equal(replica, trainer)


def test_shards_of_two_runs_or_in_another_order_are_refused() -> None:
    _, transports = published(1)
    other = ShardedTrainer({"item": 4}, 2)
    other.run_id = "else"
    strange = LateTransport()
    strange.begin(other.headers()[1])
    for transport in (*transports, strange):
        transport.deliver_all()
    for given, error, says in (
        (transports[::-1], OtherShard, "shard 1 of 2 came where shard 0 of 2 was expected"),
        (transports[:1], OtherShard, "shard 0 of 2 came where shard 0 of 1 was expected"),
        ([transports[0], strange], OtherRun, "run else.*follows run run"),
    ):
        with Replica(given) as replica, pytest.raises(error, match=says):  # type: ignore[arg-type]
            replica.apply_available()
    with pytest.raises(ValueError, match="no transport"):
        Replica([])
