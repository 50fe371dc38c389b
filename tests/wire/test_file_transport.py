"""The file transport keeps the contract, and what is its own: torn ends, damage, rotation, a full disk, another process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.files import LockedDirectory
from pipeline.wire import (
    FileTransport,
    FileTransportOptions,
    Position,
    PositionBeyondEnd,
    StreamCorrupt,
    TransportError,
)
from pipeline.wire.records import HEAD_BYTES
from tests.contracts.transport import HEADER, Reading, TransportContract, frame

OPTIONS = FileTransportOptions(segment_bytes=4096, poll_s=0.002, read_bytes=4096)
Opener = Callable[[], FileTransport]


class TestFileTransport(TransportContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: FileTransport(str(tmp_path / "stream"), options=OPTIONS)


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    """A stream of 10 frames in one segment, of a writer that has ended."""
    return write_stream(tmp_path / "stream", 10)


def write_stream(directory: Path, count: int, segment_bytes: int = 1 << 20) -> Path:
    transport = FileTransport(str(directory), options=FileTransportOptions(segment_bytes=segment_bytes))
    transport.claim()
    transport.begin(HEADER)
    for k in range(count):
        transport.publish([frame(k)], sync=True)
    transport.close()
    return directory


def only_segment(directory: Path) -> Path:
    (segment,) = directory.glob("*.seg")
    return segment


def reading_of(directory: Path, position: Position | None = None) -> Reading:
    return Reading(FileTransport(str(directory), options=OPTIONS).subscribe(position))


def test_segments_are_bounded_and_each_begins_with_the_header(tmp_path: Path) -> None:
    directory = write_stream(tmp_path / "s", 100, segment_bytes=4096)
    segments = sorted(directory.glob("*.seg"))
    assert len(segments) > 4
    assert [path.name for path in segments] == [f"{k:010d}.seg" for k in range(1, len(segments) + 1)]
    for path in segments:
        data = path.read_bytes()
        assert data[HEAD_BYTES:].startswith(HEADER)
        assert len(data) <= 4096 + HEAD_BYTES


def test_a_reader_that_began_where_a_writer_died_at_once_reads_on_when_that_is_gone(tmp_path: Path) -> None:
    """It found a segment without a record; by its next look that segment was trimmed, and others were there."""
    directory = tmp_path / "s"
    transport = FileTransport(str(directory), options=OPTIONS)
    transport.claim()
    (directory / "0000000001.seg").touch()
    reading = reading_of(directory)
    assert reading.take_all() == []
    transport.begin(HEADER)
    behind = [transport.publish([frame(k)], sync=True) for k in range(10)]
    transport.retain_from(behind[-1])
    assert reading.take_all() == [frame(k) for k in range(10)]
    transport.close()


def test_a_reader_takes_a_bounded_number_of_bytes_at_once_however_much_waits(tmp_path: Path) -> None:
    directory = write_stream(tmp_path / "s", 500, segment_bytes=64 << 10)
    subscription, count = FileTransport(str(directory), options=OPTIONS).subscribe(None), 0
    while batch := subscription.next(0):
        assert sum(len(data) for _, data in batch) <= OPTIONS.read_bytes
        count += sum(not data.startswith(HEADER) for _, data in batch)
    assert count == 500


@pytest.mark.parametrize("cut", [1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 100])
def test_a_reader_waits_at_a_torn_end_and_a_new_writer_cuts_it_off(stream: Path, cut: int) -> None:
    segment = only_segment(stream)
    whole, record = segment.read_bytes(), HEAD_BYTES + len(frame(9))
    segment.write_bytes(whole[: len(whole) - record + cut])
    reading = reading_of(stream)
    assert reading.take_all() == [frame(k) for k in range(9)]
    assert reading.subscription.next(0.01) is None
    transport = FileTransport(str(stream))
    transport.claim()
    assert transport.torn_bytes == cut
    assert segment.read_bytes() == whole[:-record]
    transport.begin(HEADER)
    transport.publish([frame(77)], sync=True)
    assert reading.take(10)[-1] == frame(77)
    transport.close()


def test_a_torn_end_of_zeros_is_cut_off(stream: Path) -> None:
    segment = only_segment(stream)
    whole = segment.read_bytes()
    segment.write_bytes(whole + bytes(5000))
    transport = FileTransport(str(stream))
    transport.claim()
    assert transport.torn_bytes == 5000
    assert segment.read_bytes() == whole
    transport.close()


@given(st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_is_reported_with_segment_and_offset(tmp_path: Path, data: st.DataObject) -> None:
    directory = tmp_path / "flip"
    if not directory.exists():
        write_stream(directory, 10)
    segment = only_segment(directory)
    good = segment.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    segment.write_bytes(bad)
    reading = reading_of(directory)
    with pytest.raises(StreamCorrupt) as caught:
        reading.take_all()
    segment.write_bytes(good)
    assert caught.value.segment == 1
    assert caught.value.offset <= at < caught.value.offset + HEAD_BYTES + len(frame(0))
    assert f"{segment} (segment 1) at offset {caught.value.offset}" in str(caught.value)
    sound = [frame(k) for k in range(10)][: len(reading.frames)]
    assert [data for _, data in reading.frames] == sound, "what lies before the damage is delivered, nothing else"


def test_a_new_writer_refuses_damage_that_is_no_torn_end(stream: Path) -> None:
    segment = only_segment(stream)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    with pytest.raises(StreamCorrupt, match=r"segment 1.* at offset"):
        FileTransport(str(stream)).claim()
    assert segment.read_bytes() == bytes(data), "nothing was cut off"


def test_a_segment_cut_short_before_a_later_one_is_damage(tmp_path: Path) -> None:
    directory = write_stream(tmp_path / "s", 40, segment_bytes=4096)
    first = sorted(directory.glob("*.seg"))[0]
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(StreamCorrupt, match="the record is cut short"):
        reading_of(directory).take_all()


def test_a_position_behind_the_end_is_refused(stream: Path) -> None:
    for position in (Position(1, 1 << 30), Position(9, 0)):
        with pytest.raises(PositionBeyondEnd, match="start from a snapshot cut"):
            reading_of(stream, position).take_all()


def test_an_empty_segment_that_a_crash_left_is_passed_over(stream: Path) -> None:
    (stream / "0000000002.seg").write_bytes(b"")
    transport = FileTransport(str(stream))
    transport.claim()
    transport.begin(HEADER)
    transport.publish([frame(10)], sync=True)
    transport.close()
    assert reading_of(stream).take_all() == [frame(k) for k in range(11)]


def test_storage_that_lost_its_segments_has_another_epoch(stream: Path) -> None:
    epoch = FileTransport(str(stream)).epoch
    only_segment(stream).unlink()
    transport = FileTransport(str(stream))
    assert transport.claim() != epoch
    transport.close()


def test_a_damaged_epoch_file_is_named(stream: Path) -> None:
    (stream / "epoch").write_bytes(b"\xff nonsense")
    with pytest.raises(TransportError, match=r"epoch: .* is not an epoch"):
        _ = FileTransport(str(stream)).epoch


def test_a_frame_longer_than_readers_accept_is_not_published(tmp_path: Path) -> None:
    transport = FileTransport(str(tmp_path / "s"), options=FileTransportOptions(max_frame_bytes=4096))
    transport.claim()
    transport.begin(HEADER)
    with pytest.raises(TransportError, match="readers accept 4096"):
        transport.publish([bytes(4097)], sync=True)
    transport.close()


WRITER = """
import sys
from pipeline.wire import FileTransport, FileTransportOptions
from tests.contracts.transport import HEADER, frame
transport = FileTransport(sys.argv[1], options=FileTransportOptions(segment_bytes=8192))
transport.claim()
transport.begin(HEADER)
for k in range(300):
    transport.publish([frame(k)], sync=k % 10 == 9)
print("published", flush=True)
sys.stdin.read()
"""


def test_a_reader_follows_a_writer_in_another_process_that_is_killed(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    reading = reading_of(directory)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert reading.take(300) == [frame(k) for k in range(300)]
            assert process.stdout is not None
            assert process.stdout.readline() == b"published\n"
            with pytest.raises(LockedDirectory, match=str(process.pid)):
                FileTransport(str(directory)).claim()
        finally:
            process.kill()
    transport = FileTransport(str(directory))
    transport.claim()
    assert transport.torn_bytes == 0
    transport.begin(HEADER)
    transport.publish([frame(300)], sync=True)
    assert reading.take(301)[-1] == frame(300)
    transport.close()
