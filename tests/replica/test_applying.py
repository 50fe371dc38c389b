"""Cuts are applied whole, in order, once; what cannot be applied is refused and changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.replica import (
    DamagedCut,
    DamagedFrame,
    NoHeader,
    NoStartingPoint,
    OtherRun,
    Replica,
    ReplicaClosed,
    ReplicaError,
    StepFell,
    TableChanged,
    UnknownTable,
)
from pipeline.rows.codec.formulas import KINDS
from pipeline.wire import decode_frame, encode_frame
from pipeline.wire.envelope import FORMAT_VERSION
from pipeline.wire.frames import START, CutPosition
from tests.replica.trainer import DictTrainer, MemoryTransport, assert_equal, assert_shows
from tests.wire.frame_strategies import a_dictionary
from tests.wire.test_dictionary import BRINGS

INT64 = np.iinfo(np.int64)
DIMS = {"item": 4, "user": 3}


def stream_of(trainer: DictTrainer, *payloads: bytes) -> tuple[MemoryTransport, Replica]:
    transport = MemoryTransport()
    transport.begin(trainer.header())
    transport.publish(payloads)
    return transport, Replica(transport)  # type: ignore[arg-type]


def trained(cuts: int = 3, **options: object) -> tuple[DictTrainer, list[bytes]]:
    trainer = DictTrainer(DIMS, **options)  # type: ignore[arg-type]
    frames: list[bytes] = []
    for number in range(cuts):
        trainer.update({"item": list(range(number, 12 + number)), "user": [INT64.min, -1, INT64.max, number]})
        frames += trainer.cut()
    return trainer, frames


@pytest.mark.parametrize("codec", list(KINDS))
def test_a_replica_equals_the_trainer_after_each_cut(codec: str) -> None:
    trainer = DictTrainer(DIMS, codec=codec)
    transport, replica = stream_of(trainer)
    assert replica.apply_available() == 0
    assert_equal(replica, trainer, probes=[5, -7])
    for number in range(4):
        trainer.update({"item": list(range(number, 30)), "user": [INT64.min, -1, number]})
        trainer.update({"item": [3, 99]})
        transport.publish(trainer.cut())
        assert replica.apply_available() == 1
        assert_equal(replica, trainer, probes=[1000, INT64.max])
    assert replica.step == trainer.step
    assert replica.counters.cuts == 4


def test_a_cut_without_its_commit_frame_is_not_seen() -> None:
    trainer, frames = trained(2)
    *most, commit = frames
    transport, replica = stream_of(trainer, *most)
    replica.apply_available()
    with replica.view() as view:
        assert_shows(view, trainer, CutPosition(1, 1))
    assert replica.lag.cuts == 1
    transport.publish([commit])
    replica.apply_available()
    assert_equal(replica, trainer)
    assert replica.lag.cuts == replica.lag.steps == 0


def test_an_abandoned_cut_leaves_nothing_behind() -> None:
    trainer, frames = trained(1)
    trainer.update({"item": [1, 500]})
    abandoned = trainer.cut(commit=False)
    trainer.update({"item": [2, 501]})
    _, replica = stream_of(trainer, *frames, *abandoned, *trainer.cut())
    assert replica.apply_available() == 2
    assert_equal(replica, trainer)
    assert replica.counters.abandoned == 1


def test_frames_that_come_twice_are_applied_once() -> None:
    trainer, frames = trained(3)
    twice = [frame for frame in frames for _ in range(2)]
    _, replica = stream_of(trainer, *twice, *frames)
    assert replica.apply_available() == 3
    assert_equal(replica, trainer)
    assert replica.counters.duplicates > 0


def test_tombstones_forget_rows() -> None:
    trainer, frames = trained(1)
    transport, replica = stream_of(trainer, *frames)
    trainer.forget("item", [0, 3, 11])
    trainer.forget("user", [-1])
    trainer.update({"item": [3, 4]})
    transport.publish(trainer.cut())
    replica.apply_available()
    assert_equal(replica, trainer, probes=[0, 11, -1])
    assert replica.counters.rows_forgotten == 3


def test_dense_weights_change_with_the_rows_of_their_cut() -> None:
    trainer = DictTrainer(DIMS)
    transport, replica = stream_of(trainer)
    for number in range(3):
        trainer.dense = {
            "w": np.full((5, 7), number, np.float32),
            "empty": np.zeros((0, 3)),
            "scalar": np.array(number),
        }
        trainer.update({"item": [number]})
        transport.publish(trainer.cut())
        replica.apply_available()
        assert_equal(replica, trainer)
    with replica.view() as view, pytest.raises(ValueError, match="read-only"):
        view.dense()["w"][0, 0] = 1


def test_a_step_without_rows_moves_the_position() -> None:
    trainer, frames = trained(1)
    trainer.update({})
    _, replica = stream_of(trainer, *frames, *trainer.cut())
    replica.apply_available()
    assert (replica.position, replica.step) == (CutPosition(1, 2), 2)


def test_only_the_wanted_tables_are_held() -> None:
    trainer, frames = trained(2)
    transport = MemoryTransport()
    transport.publish([trainer.header(), *frames])
    replica = Replica(transport, tables=["user"])  # type: ignore[arg-type]
    assert replica.apply_available() == 2
    assert replica.tables == ("user",)
    with replica.view() as view:
        assert view.ids("user").tolist() == sorted(trainer.model["user"])
        with pytest.raises(UnknownTable, match="'item': it holds user"):
            view.lookup("item", [1])
    missing = Replica(transport, tables=["visitor"])  # type: ignore[arg-type]
    with pytest.raises(UnknownTable, match="no table 'visitor': it holds item, user"):
        missing.apply_available()


def test_a_cut_longer_than_the_staging_room_waits_in_a_file() -> None:
    trainer = DictTrainer(DIMS)
    transport = MemoryTransport()
    transport.publish([trainer.header()])
    replica = Replica(transport, stage_bytes=200)  # type: ignore[arg-type]
    for _ in range(3):
        trainer.update({"item": list(range(100)), "user": list(range(50))})
        trainer.forget("item", [5, 6])
        transport.publish(trainer.cut())
        replica.apply_available()
        assert_equal(replica, trainer)


@pytest.mark.parametrize("stage_bytes", [200, 1 << 20])
def test_a_header_may_bring_a_dictionary_in_the_middle_of_a_cut(stage_bytes: int) -> None:
    trainer = DictTrainer(DIMS)
    transport = MemoryTransport()
    transport.begin(trainer.header())
    replica = Replica(transport, stage_bytes=stage_bytes)  # type: ignore[arg-type]
    trainer.update({"item": list(range(100)), "user": list(range(50))})
    trainer.dictionary, trainer.shuffled = a_dictionary(), ("ids", "versions", "rows", "dead")
    compressed = trainer.cut()
    trainer.dictionary, trainer.shuffled = b"", ()
    plain = [encode_frame(decode_frame(data, header=BRINGS)) for data in compressed]
    assert compressed[5] != plain[5]
    trainer.dictionary = a_dictionary()
    for part in (plain[:5], [trainer.header()], compressed[5:], [trainer.header()]):
        transport.publish(part)
        replica.apply_available()
    assert_equal(replica, trainer)
    trainer.forget("item", [5, 6])
    trainer.update({"item": [1]})
    transport.publish(trainer.cut())
    replica.apply_available()
    assert_equal(replica, trainer)


# Snapshot cuts.


def test_a_replica_that_came_late_starts_from_the_snapshot_cut() -> None:
    trainer, frames = trained(3)
    head = len(frames) - 2
    snapshot = trainer.snapshot()
    trainer.update({"item": [1, 2]})
    later = trainer.cut()
    transport, replica = stream_of(trainer, *frames, *snapshot[:3], *later, *snapshot[3:])
    transport.trim(head)  # begins inside the third cut
    assert replica.apply_available() == 2
    assert_equal(replica, trainer)
    assert (replica.counters.snapshot_cuts, replica.counters.cuts) == (1, 1)
    assert replica.counters.rescans == 1
    replica.require_start()


def test_without_a_whole_snapshot_cut_it_waits_and_says_so() -> None:
    trainer, frames = trained(3)
    transport, replica = stream_of(trainer, *frames)
    transport.trim(len(frames) - 2)
    assert replica.apply_available() == 0
    assert replica.lag.waiting
    assert replica.position == START
    with pytest.raises(NoStartingPoint, match="no whole snapshot"):
        replica.require_start()
    transport.publish(trainer.snapshot())
    assert replica.apply_available() == 1
    assert_equal(replica, trainer)
    assert not replica.lag.waiting


def test_a_replica_at_its_position_ignores_a_snapshot_cut() -> None:
    trainer, frames = trained(2)
    snapshot = trainer.snapshot()
    transport, replica = stream_of(trainer, *frames)
    replica.apply_available()
    trainer.update({"item": [1]})
    transport.publish([*snapshot[:2], *trainer.cut(), *snapshot[2:]])
    assert replica.apply_available() == 1
    assert_equal(replica, trainer)
    assert replica.counters.snapshot_cuts == 0


def test_a_snapshot_cut_drops_every_row_it_does_not_name() -> None:
    trainer, frames = trained(1)
    transport, replica = stream_of(trainer, *frames)
    replica.apply_available()
    trainer.forget("item", [0, 1, 2])
    trainer.forget("user", list(trainer.model["user"]))
    trainer.update({"item": [500]})
    trainer.cut()  # lost on the way
    trainer.update({"item": [4, 700]})
    transport.publish(trainer.cut())
    transport.publish(trainer.snapshot())
    assert replica.apply_available() == 1
    assert_equal(replica, trainer, probes=[0, 1, 2])
    assert replica.counters.lacking == 1
    assert replica.counters.rows_forgotten == 3 + len(trainer.states[CutPosition(1, 1)]["user"])


def test_a_replica_that_retention_overtook_goes_on_from_the_next_snapshot_cut() -> None:
    trainer, frames = trained(1)
    transport, replica = stream_of(trainer, *frames)
    replica.apply_available()
    for _ in range(3):
        trainer.update({"item": [1, 2, 3]})
        transport.publish(trainer.cut())
    transport.publish(trainer.snapshot())
    transport.trim(len(transport.frames) - 6)
    replica.apply_available()
    assert_equal(replica, trainer)
    assert replica.counters.snapshot_cuts == 1


def test_an_unfinished_snapshot_cut_of_a_trainer_that_died_is_let_go() -> None:
    trainer, frames = trained(2)
    half = trainer.snapshot()[:3]
    old = trainer.header()
    header = trainer.next_generation()
    trainer.update({"item": [7]})
    transport = MemoryTransport()
    transport.begin(old)
    transport.publish([*frames, *half])
    transport.begin(header)
    transport.publish(trainer.cut())
    transport.trim(len(frames))
    replica = Replica(transport)  # type: ignore[arg-type]
    assert replica.apply_available() == 0
    transport.publish(trainer.snapshot())
    assert replica.apply_available() == 1
    assert_equal(replica, trainer)


def test_a_new_generation_goes_on_where_the_old_one_was() -> None:
    trainer, frames = trained(2)
    old = trainer.header()
    header = trainer.next_generation()
    trainer.update({"item": [1, 2]})
    transport = MemoryTransport()
    transport.publish([old, *frames, header, *trainer.cut()])
    replica = Replica(transport)  # type: ignore[arg-type]
    assert replica.apply_available() == 3
    assert replica.position == CutPosition(2, 1)
    assert_equal(replica, trainer)


def test_a_fork_takes_the_replica_back_whole_or_not_at_all() -> None:
    trainer, frames = trained(3)
    transport, replica = stream_of(trainer, *frames)
    behind = Replica(transport)  # type: ignore[arg-type]
    behind.advance(0)
    assert behind.step < replica.apply_available() == replica.step
    with replica.view() as before:
        transport.begin(trainer.fork_at(CutPosition(1, 1)))
        rewind = trainer.cut(chunk=3, rewind=True)
        transport.publish(rewind[:-1])
        assert replica.apply_available() == 0
        assert_shows(before, trainer, CutPosition(1, 3), range(40))
        transport.publish(rewind[-1:])
        assert replica.apply_available() == 1
        assert_shows(before, trainer, CutPosition(1, 3), range(40))
    assert replica.step == 1
    assert replica.lag.steps == 0
    assert_equal(replica, trainer, range(40))
    assert trainer.states[CutPosition(2, 1)] == trainer.states[CutPosition(1, 1)]
    trainer.update({"item": [0, 13, 50]})
    transport.publish(trainer.cut())
    for one in (replica, behind, Replica(transport)):  # type: ignore[arg-type]
        one.apply_available()
        assert_equal(one, trainer, range(60))


def test_a_snapshot_cut_of_a_fork_may_be_all_that_a_replica_sees_of_it() -> None:
    trainer, frames = trained(3)
    transport, replica = stream_of(trainer, *frames)
    replica.apply_available()
    transport.begin(trainer.fork_at(CutPosition(1, 1)))
    transport.publish(trainer.cut(rewind=True))
    snapshot_start = len(transport.frames)
    transport.publish(trainer.snapshot())
    transport.trim(snapshot_start)
    assert replica.apply_available() == 1
    assert replica.step == 1
    assert_equal(replica, trainer, range(40))


# What is refused.


def flip(payload: bytes, byte: int) -> bytes:
    return payload[:byte] + bytes([payload[byte] ^ 0x10]) + payload[byte + 1 :]


@pytest.mark.parametrize(
    "spoil", [lambda p: flip(p, len(p) // 2), lambda p: flip(p, 3), lambda p: p[:-5], lambda _: b""]
)
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_damaged_frame_is_named_and_nothing_of_its_cut_is_applied(
    spoil: Callable[[bytes], bytes], which: int
) -> None:
    trainer, frames = trained(1)
    trainer.update({"item": list(range(9))})
    cut = trainer.cut()
    cut[which] = spoil(cut[which])
    place = len(frames) + 1 + range(len(cut))[which] + 1
    transport, replica = stream_of(trainer, *frames, *cut)
    with pytest.raises(DamagedFrame, match=f"stream position 1:{place}: frame .*nothing of the cut"):
        replica.apply_available()
    with replica.view() as view:
        assert_shows(view, trainer, CutPosition(1, 1))
    trainer.update({"item": [1]})
    transport.publish(trainer.cut())
    with pytest.raises(DamagedFrame):
        replica.apply_available()
    assert replica.position == CutPosition(1, 1)
    assert replica.counters.refusals == 1


def test_a_frame_of_another_format_version_is_refused() -> None:
    trainer, frames = trained(1)
    frames[1] = frames[1][:4] + (FORMAT_VERSION + 1).to_bytes(2, "little") + frames[1][6:]
    _, replica = stream_of(trainer, *frames)
    with pytest.raises(
        DamagedFrame, match=f"version {FORMAT_VERSION + 1}; this build reads versions 1 and {FORMAT_VERSION}"
    ):
        replica.apply_available()


def test_a_cut_that_lacks_a_frame_is_refused() -> None:
    trainer, frames = trained(1)
    trainer.update({"item": list(range(20))})
    cut = trainer.cut()
    _, replica = stream_of(trainer, *frames, *cut[:2], *cut[3:])
    with pytest.raises(DamagedCut, match=r"cut 2 of generation 1: frame 3 came where frame 2 was expected"):
        replica.apply_available()
    _, replica = stream_of(trainer, *frames, *cut[:-2], cut[-1])
    with pytest.raises(DamagedCut, match=r"4 frames came, the commit frame says 5"):
        replica.apply_available()
    with replica.view() as view:
        assert_shows(view, trainer, CutPosition(1, 1))


def test_a_cut_whose_digest_differs_is_refused() -> None:
    trainer, frames = trained(1)
    trainer.update({"item": [1, 2]})
    real = trainer.cut()
    other = DictTrainer(DIMS, seed=99)
    other.step, other.number, other.previous = trainer.step - 1, trainer.number - 1, CutPosition(1, 1)
    other.update({"item": [1, 2]})
    _, replica = stream_of(trainer, *frames, *other.cut()[:-1], real[-1])
    with pytest.raises(DamagedCut, match="the digest of its rows is"):
        replica.apply_available()


def test_dense_weights_whose_digest_differs_are_refused() -> None:
    trainer, frames = trained(1)
    trainer.dense = {"w": np.ones(3, np.float32)}
    trainer.update({})
    real = trainer.cut()
    trainer.dense, trainer.number = {"w": np.zeros(3, np.float32)}, trainer.number - 1
    _, replica = stream_of(trainer, *frames, *trainer.cut()[:-1], real[-1])
    with pytest.raises(DamagedCut, match="digest of its dense weights"):
        replica.apply_available()


def another_run() -> tuple[DictTrainer, list[bytes], type[ReplicaError], str]:
    trainer, frames = trained(1)
    return trainer, [*frames, DictTrainer(DIMS, run_id="else").header()], OtherRun, "run else.*follows run run"


def another_dim() -> tuple[DictTrainer, list[bytes], type[ReplicaError], str]:
    trainer, frames = trained(1)
    return trainer, [*frames, DictTrainer({"item": 8}, generation=2).header()], TableChanged, "'item' was dim 4"


def another_header_of_the_generation() -> tuple[DictTrainer, list[bytes], type[ReplicaError], str]:
    trainer, frames = trained(1)
    return trainer, [*frames, DictTrainer(DIMS, codec="fp16").header()], DamagedFrame, "second header of generation 1"


def a_dictionary_taken_away() -> tuple[DictTrainer, list[bytes], type[ReplicaError], str]:
    trainer, frames = trained(1)
    trainer.dictionary = a_dictionary()
    with_one = trainer.header()
    trainer.dictionary = b""
    return trainer, [*frames, with_one, trainer.header()], DamagedFrame, "second header of generation 1"


def no_header() -> tuple[DictTrainer, list[bytes], type[ReplicaError], str]:
    trainer, frames = trained(1)
    trainer.next_generation()
    trainer.update({"item": [1]})
    return trainer, [*frames, *trainer.cut()], NoHeader, "generation 2 whose header"


def back_within_a_generation() -> tuple[DictTrainer, list[bytes], type[ReplicaError], str]:
    trainer, frames = trained(1)
    trainer.step -= 1
    return trainer, [*frames, *trainer.cut(rewind=True)], StepFell, "step 0.*was of step 1"


def back_without_a_fork() -> tuple[DictTrainer, list[bytes], type[ReplicaError], str]:
    trainer, frames = trained(1)
    header = trainer.fork_at(START)
    return trainer, [*frames, header, *trainer.cut()], StepFell, "says of no fork"


@pytest.mark.parametrize(
    "case",
    [
        another_run,
        another_dim,
        another_header_of_the_generation,
        a_dictionary_taken_away,
        no_header,
        back_within_a_generation,
        back_without_a_fork,
    ],
)
def test_what_does_not_belong_to_the_stream_is_refused(
    case: Callable[[], tuple[DictTrainer, list[bytes], type[ReplicaError], str]],
) -> None:
    trainer, payloads, error, says = case()
    transport = MemoryTransport()
    transport.publish([DictTrainer(DIMS).header(), *payloads])
    replica = Replica(transport)  # type: ignore[arg-type]
    with pytest.raises(error, match=says):
        replica.apply_available()
    with replica.view() as view:
        assert_shows(view, trainer, CutPosition(1, 1))


def test_a_trainer_that_was_replaced_and_still_publishes_stops_nobody() -> None:
    trainer, frames = trained(2)
    old = copy.deepcopy(trainer)
    transport, replica = stream_of(trainer, *frames)
    transport.begin(trainer.next_generation())
    for _ in range(3):
        old.update({"item": [1, 2, 3]})
        transport.publish([old.header(), *old.cut(), *old.snapshot()])
        trainer.update({"item": [2]})
        transport.publish(trainer.cut())
        replica.apply_available()
        assert_equal(replica, trainer)
    assert replica.counters.zombie_frames >= 9
    assert replica.counters.refusals == 0


def test_a_closed_replica_says_so() -> None:
    trainer, frames = trained(1)
    _, replica = stream_of(trainer, *frames)
    replica.apply_available()
    view = replica.view()
    replica.close()
    replica.close()
    with pytest.raises(ReplicaClosed):
        view.lookup("item", [1])
    with pytest.raises(ReplicaClosed):
        replica.apply_available()


def test_a_snapshot_cut_of_which_retention_left_the_commit_frame_alone_is_passed_over() -> None:
    """Its last frame may lie in one segment and its commit frame in the next, where a later snapshot cut begins."""
    trainer, _ = trained(2)
    old = trainer.snapshot()
    trainer.update({"item": [1, 2]})
    ordinary = trainer.cut()
    _, replica = stream_of(trainer, old[-1], *ordinary, *trainer.snapshot())
    replica.apply_available()
    assert_equal(replica, trainer)
    assert replica.counters.refusals == 0
