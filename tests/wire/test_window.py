"""What a writer over a broker keeps, and sends again: against a broker of a few lines that loses whatever it likes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.wire import StreamCorrupt
from pipeline.wire.broker.entries import CLAIM, FRAME, Entry, Joiner, join, split
from pipeline.wire.broker.window import Window


@given(st.data())
def test_whatever_fails_frames_arrive_once_and_in_order(data: st.DataObject) -> None:
    """Calls of frames, acknowledged or not; at any moment the connection may be lost, with any number of the frames on their way stored. A
    failed call is made again with the same frames, or given up.
    """
    window, stored = Window(), list[bytes]()
    expected, number, sent = list[bytes](), 0, list[tuple[bytes, int]]()
    broken, retry = False, list[bytes]()

    def store(count: int) -> int:
        """The first ``count`` of those on their way arrive."""
        stored.extend(frame for frame, _ in sent[:count])
        return sent[count - 1][1] if count else 0

    for call in range(data.draw(st.integers(1, 12))):
        frames = retry or [b"%d.%d" % (call, k) for k in range(data.draw(st.integers(0, 4)))]
        known = 0
        if broken:
            known = window.retry(store(data.draw(st.integers(0, len(sent)))), frames)
            sent = []
        for frame in frames[known:]:
            window.take(frame)
        broken, sync = data.draw(st.booleans()), data.draw(st.booleans())
        limit = data.draw(st.integers(0, 6)) if broken else 1 << 30
        while (unsent := window.unsent) is not None and limit:
            number, limit = number + 1, limit - 1
            window.note_sent(number)
            sent.append((unsent, number))
        if broken:
            retry = frames if data.draw(st.booleans()) else []
            continue
        if sync:
            window.acknowledge(store(len(sent)))
            sent = []
            assert len(window) == window.nbytes == 0
        window.settle()
        retry = []
        expected += frames
    stored += [frame for frame, _ in sent] if not broken else []
    assert len(set(stored)) == len(stored), "nothing twice"
    kept = [frame for frame in stored if frame in expected]
    assert kept == expected[: len(kept)], "in order, without a hole"
    assert broken or kept == expected


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 9), st.data())
def test_frames_come_out_of_their_pieces_whole(frames: list[bytes], piece: int, data: st.DataObject) -> None:
    """A frame that breaks off comes again; what lies between is passed over."""
    entries, last = list[Entry](), 0
    for frame in frames:
        parts = split(FRAME, frame, last, piece)
        broken = parts[: data.draw(st.integers(0, len(parts) - 1))]
        entries += broken
        last += len(broken)
        if data.draw(st.booleans()):
            entries += split(CLAIM, b"who", last, piece * 100)
            last += 1
        parts = split(FRAME, frame, last, piece)
        entries += parts
        last += len(parts)
    assert [entry.number for entry in entries] == list(range(1, last + 1))
    assert list(join("here", entries, 1000)) == frames
    behind = data.draw(st.integers(0, last))
    later = list(join("here", entries[behind:], 1000))
    assert later == frames[len(frames) - len(later) :], "who begins in the middle of a frame gets those behind it"


def test_a_frame_longer_than_readers_take_is_damage_and_so_is_a_label_that_says_nothing() -> None:
    joiner = Joiner("here", 10)
    assert joiner.add(Entry(1, "f.0.2", bytes(8))) is None
    with pytest.raises(StreamCorrupt, match="here at message 2: a frame of more than 10 bytes"):
        joiner.add(Entry(2, "f.1.2", bytes(8)))
    for label in ("", "f", "f.1", "f.2.2", "f.-1.2", "x.0.1", "f.a.b"):
        with pytest.raises(StreamCorrupt, match="labels no entry"):
            joiner.add(Entry(3, label, b""))
