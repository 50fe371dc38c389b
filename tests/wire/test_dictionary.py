"""Frames that are compressed with the dictionary of the header before them; what does not fit together is refused."""

from __future__ import annotations

import struct
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings

from pipeline.wire import FrameError, FrameLimits, HeaderFrame, RowsFrame, decode_frame, encode_frame
from pipeline.wire.envelope import seal, unseal
from pipeline.wire.frames import DEFAULT_LIMITS, Frame
from pipeline.wire.reading import FrameReader
from pipeline.wire.zstd import DICTIONARY_MAGIC, MAX_KEPT, compress, decompress
from tests.wire.frame_strategies import a_dictionary, frames, same
from tests.wire.test_format import EXAMPLE, HEADER

DICTIONARY = a_dictionary()
BRINGS = replace(HEADER, dictionary=DICTIONARY)


@given(frames)
@settings(max_examples=60, deadline=None)
def test_a_frame_comes_back_as_it_went(frame: Frame) -> None:
    data = encode_frame(frame, dictionary=DICTIONARY)
    assert data[6:8] == struct.pack("<H", 1 if isinstance(frame, HeaderFrame) else 2)
    assert same(decode_frame(data, header=BRINGS), frame)


def test_text_like_that_of_the_samples_takes_less_room() -> None:
    text = b"some rows 17 some rows 423 "
    assert len(seal(text, dictionary=DICTIONARY)) < len(seal(text))
    assert unseal(seal(text, dictionary=DICTIONARY), DEFAULT_LIMITS, DICTIONARY) == text


def test_a_reader_takes_the_dictionary_from_the_last_header() -> None:
    reader = FrameReader()
    with pytest.raises(FrameError, match="compressed with a dictionary, and the header before it has none"):
        reader.read(encode_frame(EXAMPLE, dictionary=DICTIONARY))
    for header, compressed in ((HEADER, b""), (BRINGS, DICTIONARY), (BRINGS, b"")):
        assert reader.read(encode_frame(header)) == header
        assert same(reader.read(encode_frame(EXAMPLE, dictionary=compressed)), EXAMPLE)
    with pytest.raises(FrameError, match="and the header before it has none"):
        decode_frame(encode_frame(EXAMPLE, dictionary=DICTIONARY), header=HEADER)


def test_another_dictionary_is_noticed() -> None:
    other = replace(HEADER, dictionary=DICTIONARY[:4] + b"\x01\x02\x03\x04" + DICTIONARY[8:])
    data = encode_frame(EXAMPLE, dictionary=DICTIONARY)
    with pytest.raises(FrameError, match="content"):
        decode_frame(data, header=other)


@pytest.mark.parametrize(
    ("dictionary", "what"),
    [
        (b"text", "begins with b'text', expected zstd's"),
        (DICTIONARY_MAGIC + bytes(300), "zstd does not take it"),
        (DICTIONARY[:100], "zstd does not take it"),
        (DICTIONARY_MAGIC + bytes(1 << 20), "1048580 bytes, the limit is 1048576"),
    ],
)
def test_what_is_no_dictionary_is_refused_with_its_header(dictionary: bytes, what: str) -> None:
    with pytest.raises(FrameError, match=f"'dictionary': {what}"):
        decode_frame(encode_frame(replace(HEADER, dictionary=dictionary)))


def test_the_limit_is_the_readers_own() -> None:
    with pytest.raises(FrameError, match="the limit is 1000"):
        decode_frame(encode_frame(BRINGS), FrameLimits(dictionary_bytes=1000))


def test_a_frame_of_version_1_is_read() -> None:
    data = bytearray(encode_frame(EXAMPLE))
    data[4:6] = struct.pack("<H", 1)
    from pipeline.wire.envelope import _checksum

    data[16:24] = struct.pack("<Q", _checksum(bytes(data[:16]), bytes(data[24:])))
    decoded = decode_frame(bytes(data))
    assert isinstance(decoded, RowsFrame)
    assert same(decoded, EXAMPLE)


def test_contexts_are_each_threads_own_and_not_many() -> None:
    wrong: list[object] = []

    def work() -> None:
        for level in range(1, MAX_KEPT + 4):
            for dictionary in (b"", DICTIONARY):
                text = b"some rows %d" % level * 9
                if decompress(compress(text, level, dictionary), len(text), dictionary) != text:
                    wrong.append((level, dictionary))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
