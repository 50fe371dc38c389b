"""What every transport promises. A test class for a transport inherits ``TransportContract`` and says how to open one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.wire import (
    Position,
    StreamAbsent,
    StreamTrimmed,
    Subscription,
    Transport,
    TransportClosed,
    TransportError,
    WriterFenced,
)

HEADER = b"header of generation "
SOON_S = 20.0
"""Long enough that only a broken transport lets it pass."""


def frame(number: int, size: int = 200) -> bytes:
    return b"%09d" % number + bytes(size)


def number_of(data: bytes) -> int:
    return int(data[:9])


class Reading:
    """Takes frames from a subscription; repeated headers are set apart."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.frames: list[tuple[Position, bytes]] = []
        self.headers: list[tuple[Position, bytes]] = []
        self.positions: list[Position] = []

    def take(self, count: int) -> list[bytes]:
        """Read until ``count`` frames, headers apart, have come."""
        while len(self.frames) < count:
            self.take_some(SOON_S)
        return [data for _, data in self.frames]

    def take_some(self, timeout: float) -> bool:
        batch = self.subscription.next(timeout)
        assert batch is not None or timeout < SOON_S, "nothing came"
        for position, data in batch or []:
            self.positions.append(position)
            (self.headers if data.startswith(HEADER) else self.frames).append((position, data))
        return batch is not None

    def take_all(self) -> list[bytes]:
        """Read what is there."""
        while self.take_some(0):
            pass
        return [data for _, data in self.frames]


class TransportContract:
    """``opener`` returns a new handle on one and the same stream each time; parts of a stream (segments) are small."""

    fences = False
    """Whether a second writer fences out the first; else it is refused while the first lives."""

    @pytest.fixture
    def opener(self, tmp_path: Any) -> Any:
        raise NotImplementedError

    @contextmanager
    def writer(self, opener: Any, generation: int = 1) -> Iterator[Transport]:
        transport: Transport = opener()
        try:
            transport.claim()
            transport.begin(HEADER + b"%d" % generation)
            yield transport
        finally:
            transport.close()

    @contextmanager
    def reader(self, opener: Any, position: Position | None = None) -> Iterator[Reading]:
        transport: Transport = opener()
        try:
            yield Reading(transport.subscribe(position))
        finally:
            transport.close()

    def test_a_reader_gets_the_header_and_then_every_frame_in_order(self, opener: Any) -> None:
        sent = [frame(k) for k in range(100)]
        with self.writer(opener) as transport, self.reader(opener) as reading:
            for start in range(0, 100, 7):
                transport.publish(sent[start : start + 7], sync=start % 2 == 0)
            assert reading.take(100) == sent
            assert reading.headers[0][1] == HEADER + b"1"
            assert reading.positions == sorted(set(reading.positions))

    def test_a_reader_goes_on_from_any_position_it_was_given(self, opener: Any) -> None:
        sent = [frame(k) for k in range(60)]
        with self.writer(opener) as transport, self.reader(opener) as reading:
            transport.publish(sent, sync=True)
            reading.take(60)
            for k, (position, _) in enumerate(reading.frames):
                with self.reader(opener, position) as later:
                    assert later.take(59 - k) == sent[k + 1 :]

    def test_publish_returns_the_position_behind_its_last_frame(self, opener: Any) -> None:
        with self.writer(opener) as transport:
            behind = [transport.publish([frame(k)], sync=False) for k in range(30)]
            assert transport.end == behind[-1]
            with self.reader(opener) as reading:
                reading.take(30)
                assert [position for position, _ in reading.frames] == behind
            assert transport.publish([], sync=True) == behind[-1]

    def test_a_large_frame_comes_whole(self, opener: Any) -> None:
        with self.writer(opener) as transport, self.reader(opener) as reading:
            transport.publish([frame(0, 3_000_000), frame(1)], sync=True)
            assert reading.take(2) == [frame(0, 3_000_000), frame(1)]

    def test_next_returns_none_when_nothing_comes(self, opener: Any) -> None:
        with self.writer(opener), self.reader(opener) as reading:
            reading.take_all()
            assert reading.subscription.next(0.01) is None

    @pytest.mark.parametrize("shared", [True, False])
    def test_a_waiting_reader_wakes_when_a_frame_is_published(self, opener: Any, shared: bool) -> None:
        with self.writer(opener) as transport:
            other = transport if shared else opener()
            reading, waiting, got = Reading(other.subscribe(None)), threading.Event(), []
            reading.take_all()

            def wait() -> None:
                waiting.set()
                got.extend(reading.take(1))

            thread = threading.Thread(target=wait)
            thread.start()
            assert waiting.wait(SOON_S)
            transport.publish([frame(1)], sync=False)
            thread.join(SOON_S)
            assert got == [frame(1)]
            if not shared:
                other.close()

    def test_a_stream_that_does_not_exist_yet_is_waited_for(self, opener: Any) -> None:
        with self.reader(opener) as reading:
            assert reading.subscription.next(0) is None
            with self.writer(opener) as transport:
                transport.publish([frame(1)], sync=True)
                assert reading.take(1) == [frame(1)]

    def test_a_reader_that_starts_late_gets_everything(self, opener: Any) -> None:
        sent = [frame(k) for k in range(50)]
        with self.writer(opener) as transport:
            transport.publish(sent, sync=True)
        with self.reader(opener) as reading:
            assert reading.take_all() == sent

    def test_a_later_writer_goes_on_behind_the_earlier_one(self, opener: Any) -> None:
        with self.reader(opener) as reading:
            for generation in range(1, 5):
                with self.writer(opener, generation) as transport:
                    transport.publish([frame(generation)], sync=True)
                    assert reading.take(generation)[-1] == frame(generation)
            headers = [data for _, data in reading.headers]
            assert sorted(set(headers)) == [HEADER + b"%d" % generation for generation in range(1, 5)]
            assert headers == sorted(headers)

    def test_of_two_writers_at_most_one_is_served(self, opener: Any) -> None:
        with self.writer(opener) as transport:
            transport.publish([frame(0)], sync=True)
            other = opener()
            if self.fences:
                self.fence(transport, other)
            else:
                with pytest.raises((TransportError, OSError), match=r"locked|writer"):
                    other.claim()
                transport.publish([frame(1)], sync=True)
            other.close()
        with self.writer(opener, 2), self.reader(opener) as reading:
            assert reading.take_all() == [frame(0), frame(1)]

    def fence(self, transport: Transport, other: Transport) -> None:
        """``other`` takes the stream from ``transport``, which is told, again and again, and is never read any more."""
        other.claim()
        acts: list[Callable[[], object]] = [
            lambda: transport.publish([frame(77)], sync=True),
            lambda: transport.publish([frame(78)], sync=True),
            lambda: transport.begin(HEADER + b"1"),
        ]
        for act in acts:
            with pytest.raises(WriterFenced, match="stop this one"):
                act()
        other.begin(HEADER + b"2")
        other.publish([frame(1)], sync=True)

    def test_only_a_writer_that_began_may_publish(self, opener: Any) -> None:
        transport = opener()
        acts: list[Callable[[], object]] = [
            lambda: transport.publish([frame(1)], sync=True),
            lambda: transport.begin(HEADER),
            lambda: transport.retain_from(Position(0, 0)),
            lambda: transport.end,
        ]
        for act in acts:
            with pytest.raises(TransportError, match=r"claim\(\)"):
                act()
        transport.claim()
        with pytest.raises(TransportError, match=r"begin\(\)"):
            transport.publish([frame(1)], sync=True)
        transport.close()

    def test_the_epoch_is_that_of_the_storage(self, opener: Any) -> None:
        transport = opener()
        with pytest.raises(StreamAbsent):
            _ = transport.epoch
        epoch = transport.claim()
        assert transport.claim() == epoch, "twice is once"
        transport.begin(HEADER)
        other = opener()
        assert other.epoch == transport.epoch == epoch
        other.close()
        transport.close()
        again = opener()
        assert again.claim() == epoch
        again.close()

    def test_the_newest_frames_come_first_in_pieces_that_begin_with_a_header(self, opener: Any) -> None:
        sent: list[bytes] = []
        for generation in (1, 2):
            with self.writer(opener, generation) as transport:
                some = [frame(generation * 1000 + k) for k in range(100)]
                transport.publish(some, sync=True)
                sent += some
                pieces = list(transport.newest_first())
                assert len(pieces) > generation, "a stream this long has parts"
                assert all(piece[0].startswith(HEADER) for piece in pieces)
                assert pieces[0][0] == HEADER + b"%d" % generation
                frames = [data for piece in reversed(pieces) for data in piece if not data.startswith(HEADER)]
                assert frames == sent
                assert list(transport.newest_first()) == pieces, "it can be read again"

    def test_a_stream_without_frames_has_no_pieces(self, opener: Any) -> None:
        transport = opener()
        assert list(transport.newest_first()) == []
        transport.claim()
        assert list(transport.newest_first()) == []
        transport.close()

    def test_what_retention_left_is_what_comes_newest_first(self, opener: Any) -> None:
        with self.writer(opener) as transport:
            behind = [transport.publish([frame(k)], sync=True) for k in range(200)]
            transport.retain_from(behind[150])
            pieces = list(transport.newest_first())
            numbers = [number_of(data) for piece in reversed(pieces) for data in piece if not data.startswith(HEADER)]
            assert numbers == list(range(numbers[0], 200))
            assert 0 < numbers[0] <= 151

    def test_retention_removes_nothing_behind_the_position(self, opener: Any) -> None:
        with self.writer(opener) as transport:
            behind = [transport.publish([frame(k)], sync=True) for k in range(200)]
            freed = transport.retain_from(behind[99])
            assert freed > 0
            with self.reader(opener, behind[99]) as reading:
                assert reading.take_all() == [frame(k) for k in range(100, 200)]
            with self.reader(opener) as reading:
                numbers = [number_of(data) for data in reading.take_all()]
                assert reading.positions[0] == reading.headers[0][0], "what is left begins with a header"
                assert numbers == list(range(numbers[0], 200))
                assert numbers[0] <= 100
            assert transport.retain_from(behind[99]) == 0

    def test_a_position_that_retention_removed_is_refused(self, opener: Any) -> None:
        with self.writer(opener) as transport:
            behind = [transport.publish([frame(k)], sync=True) for k in range(200)]
            transport.retain_from(behind[-1])
            with (
                self.reader(opener, behind[0]) as reading,
                pytest.raises(StreamTrimmed, match="start from the snapshot"),
            ):
                reading.take_all()

    def test_a_reader_that_falls_behind_retention_is_told(self, opener: Any) -> None:
        with self.writer(opener) as transport, self.reader(opener) as reading:
            transport.publish([frame(0)], sync=True)
            reading.take(1)
            behind = [transport.publish([frame(k)], sync=True) for k in range(1, 200)]
            transport.retain_from(behind[-1])
            with pytest.raises(StreamTrimmed):
                reading.take_all()

    def test_closing_wakes_a_waiting_reader(self, opener: Any) -> None:
        transport = opener()
        waiting, ended = threading.Event(), []

        def wait(subscription: Subscription) -> None:
            waiting.set()
            try:
                subscription.next(None)
            except TransportClosed:
                ended.append(True)

        for close in ("subscription", "transport"):
            waiting.clear()
            subscription = transport.subscribe(None)
            thread = threading.Thread(target=wait, args=(subscription,))
            thread.start()
            assert waiting.wait(SOON_S)
            (subscription if close == "subscription" else transport).close()
            thread.join(SOON_S)
            assert not thread.is_alive()
        assert ended == [True, True]
        with pytest.raises(TransportClosed):
            transport.subscribe(None)

    def test_frames_of_one_call_stay_together_when_several_threads_publish(self, opener: Any) -> None:
        with self.writer(opener) as transport, self.reader(opener) as reading:

            def publish(thread: int) -> None:
                for k in range(20):
                    first = thread * 1000 + k * 5
                    transport.publish([frame(first + j) for j in range(5)], sync=k % 5 == 0)

            threads = [threading.Thread(target=publish, args=(k,)) for k in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SOON_S)
            numbers = [number_of(data) for data in reading.take(400)]
            groups = [numbers[k : k + 5] for k in range(0, 400, 5)]
            assert all(group == list(range(group[0], group[0] + 5)) for group in groups)
            assert sorted(numbers) == sorted(t * 1000 + k for t in range(4) for k in range(100))
