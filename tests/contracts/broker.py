"""What every transport over a broker promises when the broker fails. A test class inherits it and says how to make server and transport.

Servers are real and belong to one test each.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.wire import (
    BrokerRefuses,
    BrokerUnreachable,
    Position,
    StreamFull,
    StreamLost,
    StreamReplaced,
    Transport,
    TransportClosed,
    TransportError,
    WriterFenced,
)
from pipeline.wire.broker.broker import Link
from pipeline.wire.broker.entries import FRAME, split
from pipeline.wire.broker.entries import HEADER as HEADER_ENTRY
from tests.contracts.broker_kind import BrokerKind
from tests.contracts.transport import HEADER, SOON_S, Reading, frame
from tests.e2e.patience import until
from tests.support.proxy import Proxy
from tests.support.servers import Server, free_port


class BrokerContract:
    KIND: ClassVar[BrokerKind]

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        server = self.make_server(tmp_path / "server")
        server.start()
        yield server
        server.kill()

    def make_server(self, directory: Path) -> Server:
        return self.KIND.server(directory)

    def make_guarded(self, directory: Path) -> Server:
        """One that asks for the credentials ``user:correct``."""
        raise NotImplementedError

    def make_transport(self, url: str, *, generation: int = 0, **options: Any) -> Any:
        """On the stream ``broken``, with small parts."""
        return self.KIND.transport(url, "broken", generation, **{**self.KIND.small_parts, **options})

    def make_link(self, url: str) -> Link:
        """A writer's connection to the stream ``broken``."""
        return self.KIND.broker(self.KIND.options(url=url, stream="broken", timeout_s=5), 0).link()

    PING, PONG = b"", b""
    """What a server of this kind answers to, at any time."""

    def fill(self, server: Server) -> None:
        """Leave the broker room for some hundred kilobytes."""
        raise NotImplementedError

    def leave_no_room(self, server: Server) -> None:
        """It is full, and stays so whatever it frees by itself. Here: nothing to do."""

    def make_room(self, server: Server) -> None:
        raise NotImplementedError

    @contextmanager
    def opened(self, server: Server, **options: Any) -> Iterator[Any]:
        transport = self.make_transport(server.url, timeout_s=options.pop("timeout_s", 5.0), **options)
        try:
            yield transport
        finally:
            transport.close()

    @contextmanager
    def begun(self, server: Server, **options: Any) -> Iterator[Any]:
        with self.opened(server, **options) as transport:
            transport.claim()
            transport.begin(HEADER + b"1")
            yield transport

    @contextmanager
    def read(self, server: Server, position: Position | None = None) -> Iterator[Reading]:
        with self.opened(server) as transport:
            yield Reading(transport.subscribe(position))

    def test_a_broker_that_is_not_there_is_named_with_what_would_help(self, tmp_path: Path) -> None:
        self.make_server(tmp_path)  # skips where the program is missing
        url = self.make_server(tmp_path).url.rpartition(":")[0] + f":{free_port()}"
        transport = self.make_transport(url, timeout_s=2.0)
        for act in (transport.claim, lambda: transport.epoch, lambda: list(transport.newest_first())):
            with pytest.raises(BrokerUnreachable, match=rf"{url}/broken.*start one with"):
                act()
        subscription = transport.subscribe(None)
        assert subscription.next(0.05) is None
        assert "start one with" in subscription.trouble
        with pytest.raises(BrokerUnreachable):
            subscription.check_end()
        transport.close()

    def test_wrong_credentials_are_refused_and_never_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with self.make_guarded(tmp_path / "guarded") as server:
            monkeypatch.setenv("RIGHT", "user:correct")
            monkeypatch.setenv("WRONG", "user:sesame-seed")
            with self.begun(server, credentials="env:RIGHT") as transport:
                transport.publish([frame(1)], sync=True)
            for name in ("env:WRONG", None):
                with self.opened(server, credentials=name) as transport:
                    for act in (transport.claim, lambda: transport.epoch, lambda: transport.subscribe(None).next(5)):
                        with pytest.raises(BrokerRefuses, match="credentials") as caught:
                            act()
                        assert "sesame" not in f"{caught.value!r} {caught.value.__cause__!r}"
            with (
                self.opened(server, credentials="env:ABSENT") as transport,
                pytest.raises(TransportError, match="variable ABSENT is not set"),
            ):
                transport.claim()

    def test_a_frame_larger_than_the_broker_takes_travels_in_pieces(self, server: Server) -> None:
        large = [frame(0, 5_000_000), frame(1), frame(2, 1 << 20)]
        with self.begun(server, payload_bytes=64 << 20) as transport:
            behind = [transport.publish([one], sync=False) for one in large]
            with self.read(server) as reading:
                assert reading.take(3) == large
                assert [position for position, _ in reading.frames] == behind
            with self.read(server, behind[0]) as reading:
                assert reading.take(2) == large[1:]
            pieces = list(transport.newest_first())
            assert [data for piece in reversed(pieces) for data in piece if not data.startswith(HEADER)] == large

    def test_memory_of_the_writer_is_bounded_by_the_window(self, server: Server) -> None:
        with self.begun(server, window_bytes=100_000, part_bytes=1 << 20) as transport:
            for k in range(100):
                transport.publish([frame(k, 20_000)], sync=False)
                assert transport.waiting_bytes <= 100_000 + 20_009
            transport.publish([], sync=True)
            assert transport.waiting_bytes == 0
            with self.read(server) as reading:
                assert reading.take_all() == [frame(k, 20_000) for k in range(100)]

    @pytest.mark.parametrize("synced", [True, False])
    def test_a_broker_that_is_killed_and_comes_back_has_lost_nothing(self, server: Server, synced: bool) -> None:
        with self.begun(server) as transport, self.read(server) as reading:
            epoch = transport.epoch
            for k in range(50):
                transport.publish([frame(k)], sync=synced or k % 10 == 9)
            reading.take(50)
            server.kill()
            more = [frame(k) for k in range(50, 60)]
            for _ in range(2):
                with pytest.raises(BrokerUnreachable):
                    transport.publish(more, sync=True)
            server.start()
            transport.publish(more, sync=True)
            transport.publish([frame(60)], sync=True)
            assert reading.take(61) == [frame(k) for k in range(61)]
            reading.subscription.check_end()
            assert reading.subscription.reconnects == 1  # type: ignore[attr-defined]
            assert transport.epoch == epoch
            assert transport.resyncs == 1
        with self.read(server) as reading:
            assert reading.take_all() == [frame(k) for k in range(61)], "each once, in order"

    def test_frames_that_an_earlier_call_took_are_sent_again(self, server: Server) -> None:
        """And those that the caller gave up, having another cut to publish, are not."""
        with self.begun(server) as transport:
            transport.publish([frame(0)], sync=True)
            server.pause()
            transport.publish([frame(1), frame(2)], sync=False)
            server.resume()
            server.kill()
            with pytest.raises(BrokerUnreachable):
                transport.publish([frame(77)], sync=True)
            server.start()
            transport.publish([frame(3)], sync=True)
            with self.read(server) as reading:
                numbers = reading.take_all()
            assert numbers == [frame(k) for k in range(4)]

    def test_a_broker_that_hangs_is_given_up_and_gets_nothing_twice(self, server: Server) -> None:
        """What lies in its connections when it wakes does not come between, before or behind what was sent since."""
        with self.begun(server, timeout_s=0.3) as transport, self.read(server) as reading:
            transport.publish([frame(0)], sync=True)
            for first in (1, 101):
                cut = [frame(first + k) for k in range(40)]
                server.pause()
                with pytest.raises(BrokerUnreachable):
                    transport.publish(cut, sync=True)
                with pytest.raises(BrokerUnreachable):
                    transport.publish(cut, sync=True)
                server.resume()
                self.until_published(transport, cut)
            expected = [frame(0), *(frame(1 + k) for k in range(40)), *(frame(101 + k) for k in range(40))]
            assert reading.take(81) == expected
        with self.read(server) as reading:
            assert reading.take_all() == expected

    def until_published(self, transport: Transport, frames: list[bytes], sync: bool = True) -> None:
        """A server that just woke may have more to do than answer in time."""
        for _ in range(40):
            try:
                transport.publish(frames, sync=sync)
            except BrokerUnreachable:
                continue
            return
        raise AssertionError("the broker does not come back")

    def test_frames_given_up_while_the_broker_hung_do_not_come_between_others(self, server: Server) -> None:
        with self.begun(server, timeout_s=0.3) as transport:
            transport.publish([frame(0)], sync=True)
            server.pause()
            with pytest.raises(BrokerUnreachable):
                transport.publish([frame(50 + k) for k in range(20)], sync=True)
            server.resume()
            self.until_published(transport, [frame(1), frame(2)])
            with self.read(server) as reading:
                numbers = [int(data[:9]) for data in reading.take_all()]
            given_up = [number for number in numbers if number >= 50]
            assert given_up == list(range(50, 50 + len(given_up))), "in order, without a hole"
            assert numbers == [0, *given_up, 1, 2]

    def test_a_broker_that_comes_back_without_its_data_is_noticed(self, server: Server) -> None:
        with self.begun(server) as transport, self.read(server) as reading:
            epoch = transport.epoch
            transport.publish([frame(0)], sync=True)
            reading.take(1)
            server.restart(keep_data=False)
            with pytest.raises((StreamLost, BrokerUnreachable)):
                transport.publish([frame(1)], sync=True)
            with pytest.raises(StreamLost, match="snapshot cut"):
                transport.publish([frame(1)], sync=True)
            assert transport.claim() != epoch
            with pytest.raises(TransportError, match=r"begin\(\)"):
                transport.publish([frame(1)], sync=True)
            transport.begin(HEADER + b"1 again")
            transport.publish([frame(2)], sync=True)
            with pytest.raises(StreamReplaced, match="snapshot cut"):
                reading.take(2)
            with pytest.raises(StreamReplaced):
                reading.subscription.next(0)
            with self.read(server, reading.frames[0][0]) as later, pytest.raises(StreamReplaced):
                later.take_all()
            with self.read(server) as anew:
                assert anew.take(1) == [frame(2)]

    def test_a_broker_that_comes_back_with_older_data_is_noticed(self, server: Server, tmp_path: Path) -> None:
        with self.begun(server) as transport, self.read(server) as reading:
            epoch = transport.epoch
            transport.publish([frame(0)], sync=True)
            server.stop()
            shutil.copytree(server.data, tmp_path / "older")
            server.start()
            self.until_published(transport, [frame(1)])
            reading.take(2)
            server.kill()
            server.lose_data()
            shutil.copytree(tmp_path / "older", server.data)
            server.start()
            with pytest.raises((StreamLost, BrokerUnreachable)):
                transport.publish([frame(2)], sync=True)
            with pytest.raises(StreamLost, match="was acknowledged"):
                transport.publish([frame(2)], sync=True)
            assert transport.claim() != epoch
            transport.begin(HEADER + b"1 again")
            transport.publish([frame(3)], sync=True)
            with pytest.raises(StreamReplaced, match="snapshot cut"):
                reading.take(3)
            with self.read(server) as anew:
                assert anew.take_all() == [frame(3)]

    def test_a_stream_that_is_full_is_told_and_loses_nothing(self, server: Server) -> None:
        with self.begun(server) as transport:
            transport.publish([frame(0)], sync=True)
            self.fill(server)
            sent = [frame(0)]

            def publish_many() -> None:
                for k in range(1, 200):
                    transport.publish([frame(k, 20_000)], sync=True)
                    sent.append(frame(k, 20_000))

            with pytest.raises(StreamFull, match="more"):
                publish_many()
            refused = frame(len(sent), 20_000)
            self.leave_no_room(server)
            with pytest.raises(StreamFull):
                transport.publish([refused], sync=True)
            self.make_room(server)
            transport.publish([refused, frame(999)], sync=True)
            with self.read(server) as reading:
                assert reading.take_all() == [*sent, refused, frame(999)]

    def test_a_trainer_of_an_older_generation_is_refused(self, server: Server) -> None:
        with self.begun(server, generation=3) as transport:
            transport.publish([frame(0)], sync=True)
            for generation in (2, 3):
                with (
                    self.opened(server, generation=generation) as zombie,
                    pytest.raises(WriterFenced, match="generation 3 has claimed"),
                ):
                    zombie.claim()
            transport.publish([frame(1)], sync=True)
            with self.begun(server, generation=4) as newer:
                with pytest.raises(WriterFenced, match="generation 4"):
                    transport.publish([frame(66)], sync=True)
                newer.publish([frame(2)], sync=True)
                with pytest.raises(WriterFenced):
                    transport.retain_from(transport.end)
        with self.read(server) as reading:
            assert reading.take_all() == [frame(0), frame(1), frame(2)]

    def test_a_zombie_that_wakes_with_frames_on_their_way_is_fenced_out(self, server: Server) -> None:
        with self.begun(server, generation=1) as zombie:
            zombie.publish([frame(0)], sync=True)
            with self.begun(server, generation=2) as newer:
                newer.publish([frame(1)], sync=True)

                def publish_on() -> None:
                    for _ in range(20):
                        zombie.publish([frame(66)], sync=False)
                    zombie.publish([frame(67)], sync=True)

                with pytest.raises(WriterFenced):
                    publish_on()
                newer.publish([frame(2)], sync=True)
        with self.read(server) as reading:
            assert reading.take_all() == [frame(0), frame(1), frame(2)]

    def test_an_entry_that_is_not_the_next_one_is_not_appended(self, server: Server) -> None:
        link = self.make_link(server.url)
        last = link.claim().last
        link.begin_part()
        link.send(split(HEADER_ENTRY, HEADER, last, 100))
        link.wait(last + 1)
        link.send(split(FRAME, frame(1), last + 2, 1000))  # one was left out
        with pytest.raises(BrokerUnreachable, match="next"):
            link.wait(last + 3)
        assert link.resync().stored == last + 1
        link.close()

    def test_what_an_earlier_connection_still_carries_is_not_appended(self, server: Server) -> None:
        """Ten entries are on their way when the connection is given up. Behind the resync they arrive: the second of them, and the third,
        would have the right number.
        """
        with Proxy(server.port) as proxy:
            link = self.make_link(server.url.rpartition(":")[0] + f":{proxy.port}")
            last = link.claim().last
            link.begin_part()
            link.send(split(HEADER_ENTRY, HEADER, last, 100))
            link.wait(last + 1)
            pairs = proxy.hold()
            for k in range(10):
                link.send(split(FRAME, frame(k), last + 1 + k, 1000))
            until(lambda: any(len(pair.waiting) > 10 * len(frame(0)) for pair in pairs))
            (held,) = (pair for pair in pairs if pair.waiting)
            resynced = link.resync()
            assert resynced.stored == last + 1
            held.release(self.PING)
            assert held.wait_for(self.PONG), "the server has read all of it"
            link.begin_part()
            link.send(split(HEADER_ENTRY, HEADER, resynced.last, 100))
            link.send(split(FRAME, frame(77), resynced.last + 1, 1000))
            link.wait(resynced.last + 2)
            link.close()
        with self.read(server) as reading:
            assert reading.take_all() == [frame(77)]
            assert len(reading.headers) == 2

    def test_a_connection_that_is_cut_again_and_again_costs_no_frame(self, server: Server) -> None:
        with Proxy(server.port) as proxy, self.begun(server) as _:
            url = server.url.rpartition(":")[0] + f":{proxy.port}"
            writer, other = (self.make_transport(url, timeout_s=5.0) for _ in range(2))
            writer.claim()
            writer.begin(HEADER + b"2")
            reading = Reading(other.subscribe(None))
            sent = []
            for k in range(40):
                sent.append(frame(k))
                if k % 5 == 4:
                    proxy.cut()
                self.until_published(writer, sent[-1:], sync=k % 3 == 0)
            self.until_published(writer, [])
            assert reading.take(40) == sent
            writer.close()
            other.close()
        with self.read(server) as reading:
            assert reading.take_all() == sent

    def test_closing_ends_a_publish_that_waits_for_a_broker_that_hangs(self, server: Server) -> None:
        with self.begun(server, timeout_s=SOON_S * 10) as transport:
            server.pause()
            sending, ended = threading.Event(), threading.Event()

            def publish() -> None:
                sending.set()
                # The second where it has not come to its wait yet.
                with contextlib.suppress(BrokerUnreachable, TransportClosed):
                    transport.publish([frame(1)], sync=True)
                    return
                ended.set()

            thread = threading.Thread(target=publish)
            thread.start()
            assert sending.wait(SOON_S)
            until(lambda: transport.waiting_bytes > 0)
            transport.close()
            thread.join(SOON_S)
            assert ended.is_set()
            with pytest.raises(TransportClosed):
                transport.publish([frame(2)], sync=True)

    def test_a_reader_that_waits_is_woken_although_its_broker_hangs(self, server: Server) -> None:
        with self.begun(server), self.opened(server, timeout_s=0.5) as other:
            subscription = other.subscribe(None)
            subscription.next(0)
            server.pause()
            ended = threading.Event()

            def wait() -> None:
                try:
                    while True:
                        subscription.next(1)
                except TransportClosed:
                    ended.set()

            thread = threading.Thread(target=wait)
            thread.start()
            subscription.close()
            thread.join(SOON_S)
            server.resume()
            assert ended.is_set()
