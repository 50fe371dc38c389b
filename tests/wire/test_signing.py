"""Signed streams: the contract holds, and who has the key reads nothing that its holder did not write."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.wire import FileTransport, FrameError, SignatureRefused, Transport, TransportError, decode_frame
from pipeline.wire.signing import SIGNED_BYTES, SignedTransport, Signer, read_key
from tests.contracts.transport import HEADER, Reading, TransportContract, frame
from tests.wire.test_file_transport import OPTIONS, Opener

KEY = b"sixteen bytes ..."


class TestSignedTransport(TransportContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: SignedTransport(FileTransport(str(tmp_path / "stream"), options=OPTIONS), KEY)  # type: ignore[return-value]


def stream(directory: Path, key: bytes | None) -> Transport:
    inner = FileTransport(str(directory))
    return inner if key is None else SignedTransport(inner, key)


def write(directory: Path, key: bytes | None, *frames: bytes) -> None:
    transport = stream(directory, key)
    transport.claim()
    transport.begin(HEADER)
    transport.publish(frames, sync=True)
    transport.close()


def test_what_is_documented_is_what_is_written() -> None:
    begun = b"RSSG\x01\x00\x00\x00"
    signed = Signer(KEY).sign(b"a frame")
    assert signed == begun + hmac.new(KEY, begun + b"a frame", hashlib.sha256).digest() + b"a frame"


@pytest.mark.parametrize("key", [None, b"another key, which is long enough"])
def test_a_reader_with_a_key_refuses_unsigned_frames_and_those_of_another_key(
    tmp_path: Path, key: bytes | None
) -> None:
    write(tmp_path, key, frame(1))
    transport = stream(tmp_path, KEY)
    subscription = transport.subscribe(None)
    for _ in range(2):
        with pytest.raises(SignatureRefused, match="another key" if key else "not signed"):
            subscription.next(0)
    with pytest.raises(SignatureRefused):
        list(transport.newest_first())
    transport.close()


def test_what_was_signed_before_a_wrong_frame_is_delivered(tmp_path: Path) -> None:
    inner = FileTransport(str(tmp_path))
    signer = Signer(KEY)
    inner.claim()
    inner.begin(signer.sign(HEADER))
    inner.publish([signer.sign(frame(1)), frame(2), signer.sign(frame(3))], sync=True)
    transport = SignedTransport(inner, KEY)
    reading = Reading(transport.subscribe(None))
    with pytest.raises(SignatureRefused, match="position 1:"):
        reading.take_all()
    assert [data for _, data in reading.frames] == [frame(1)]
    transport.close()


@given(st.data())
def test_a_changed_byte_anywhere_is_refused(data: st.DataObject) -> None:
    signer = Signer(KEY)
    signed = bytearray(signer.sign(frame(7, 50)))
    at = data.draw(st.integers(0, len(signed) - 1))
    signed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SignatureRefused):
        signer.open("1:2", bytes(signed))
    short = bytes(signer.sign(frame(7, 50)))[: data.draw(st.integers(0, SIGNED_BYTES + 58))]
    with pytest.raises(SignatureRefused):
        signer.open("1:2", short)


def test_a_reader_without_a_key_says_that_the_stream_is_signed() -> None:
    with pytest.raises(FrameError, match="this stream is signed; give the key"):
        decode_frame(Signer(KEY).sign(bytes(100)))


def test_a_key_is_named_and_long_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", KEY.decode())
    (tmp_path / "key").write_bytes(KEY + b"\n")
    assert read_key("env:KEY") == read_key(f"file:{tmp_path / 'key'}") == KEY
    monkeypatch.setenv("KEY", "short and secret")
    assert len(read_key("env:KEY")) == 16
    monkeypatch.setenv("KEY", "fifteen secrets")
    with pytest.raises(TransportError, match="at least 16") as caught:
        read_key("env:KEY")
    assert "fifteen" not in str(caught.value)
    for name in ("env:ABSENT", f"file:{tmp_path / 'absent'}"):
        with pytest.raises(TransportError, match=r"signing_key: .*name another"):
            read_key(name)
