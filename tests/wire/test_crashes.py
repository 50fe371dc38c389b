"""Whenever the writer's machine dies: what was acknowledged is there, nothing torn is read, and writing goes on."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.files import BrokenFile, DiskFull
from tests.contracts.transport import HEADER, Reading, frame
from tests.files.recording import RecordingFiles
from tests.wire.crashes import crash_and_check, open_on


@given(st.integers(0, (1 << 32) - 1))
@settings(max_examples=150, deadline=None)
def test_acknowledged_frames_survive_a_crash_at_any_call(seed: int) -> None:
    crash_and_check(seed)


@pytest.mark.long
@given(st.integers(0, (1 << 32) - 1))
@settings(max_examples=20_000, deadline=None)
def test_the_same_for_longer(seed: int) -> None:
    crash_and_check(seed)


def test_a_full_disk_is_raised_and_writing_goes_on_when_there_is_room() -> None:
    files = RecordingFiles()
    transport = open_on(files)
    transport.claim()
    transport.begin(HEADER)
    transport.publish([frame(0)], sync=True)
    files.fail("write", at=2, code=errno.ENOSPC)
    with pytest.raises(DiskFull, match="the disk is full"):
        transport.publish([frame(1), frame(2), frame(3)], sync=True)
    reading = Reading(transport.subscribe(None))
    assert reading.take_all() == [frame(0), frame(1)]
    transport.publish([frame(4)], sync=True)
    assert reading.take_all() == [frame(0), frame(1), frame(4)]


@pytest.mark.parametrize("kind", ["create", "sync_dir", "write"])
def test_a_disk_that_fails_while_a_segment_is_begun_can_be_tried_again(kind: str) -> None:
    files = RecordingFiles()
    transport = open_on(files)
    transport.claim()
    transport.begin(HEADER)
    transport.publish([frame(0, 4000)], sync=True)
    files.fail(kind, code=errno.ENOSPC)
    with pytest.raises(DiskFull):
        transport.publish([frame(1, 4000)], sync=True)
    transport.publish([frame(2)], sync=True)
    reading = Reading(transport.subscribe(None))
    assert reading.take_all() == [frame(0, 4000), frame(2)]
    assert len(reading.headers) == 2


def test_nothing_is_acknowledged_any_more_after_a_failed_sync() -> None:
    files = RecordingFiles()
    transport = open_on(files)
    transport.claim()
    transport.begin(HEADER)
    transport.publish([frame(0)], sync=True)
    files.fail("sync", code=errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        transport.publish([frame(1)], sync=True)
    for _ in range(3):
        with pytest.raises(BrokenFile):
            transport.publish([frame(2, 4000)], sync=True)
    again = open_on(files.after_crash("drop"))
    again.claim()
    again.begin(HEADER)
    assert Reading(again.subscribe(None)).take_all() == [frame(0)]
