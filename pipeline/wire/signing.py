"""Signed frames: a key that writer and readers share, over any transport.

A signed frame is ``RSSG``, u16 version 1, u16 0, the HMAC-SHA256 of those 8 bytes and of the frame, 32 bytes, and the frame. It says that
who holds the key wrote this frame. That it is the next one is what the rules of cuts see to: generation, cut, number, digest.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence

from pipeline.wire.broker.secrets import read_secret
from pipeline.wire.envelope import SIGNED_MAGIC
from pipeline.wire.errors import SignatureRefused, TransportError
from pipeline.wire.transport import Position, Subscription, Transport

PREFIX = SIGNED_MAGIC + (1).to_bytes(2, "little") + bytes(2)
DIGEST_BYTES = hashlib.sha256().digest_size
SIGNED_BYTES = len(PREFIX) + DIGEST_BYTES
LEAST_KEY_BYTES = 16


def read_key(name: str) -> bytes:
    """The key that ``env:NAME`` or ``file:PATH`` holds. Raises TransportError."""
    key = read_secret(name, "signing_key")
    if len(key) < LEAST_KEY_BYTES:
        raise TransportError(
            f"signing_key {name}: {len(key)} bytes; a key has at least {LEAST_KEY_BYTES}, as `openssl rand -hex 32` writes"
        )
    return key


class Signer:
    """Of one key, which appears nowhere else."""

    def __init__(self, key: bytes) -> None:
        self._begun = hmac.new(key, PREFIX, hashlib.sha256)

    def sign(self, frame: bytes) -> bytes:
        return b"".join((PREFIX, self._digest(frame), frame))

    def open(self, where: str, signed: bytes) -> bytes:
        """The frame. Raises SignatureRefused."""
        if signed[:4] != PREFIX[:4]:
            raise SignatureRefused(where, "a frame that is not signed, where a signing_key asks for signed ones")
        if signed[: len(PREFIX)] != PREFIX or len(signed) < SIGNED_BYTES:
            raise SignatureRefused(where, "a signature that this build cannot read")
        view = memoryview(signed)
        if not hmac.compare_digest(view[len(PREFIX) : SIGNED_BYTES], self._digest(view[SIGNED_BYTES:])):
            raise SignatureRefused(where, "a frame that was signed with another key, or changed since")
        return bytes(view[SIGNED_BYTES:])

    def _digest(self, frame: bytes | memoryview) -> bytes:
        mac = self._begun.copy()
        mac.update(frame)
        return mac.digest()


class SignedSubscription:
    """See ``transport.Subscription``. What was signed before a wrong frame is delivered, nothing behind it is."""

    def __init__(self, inner: Subscription, signer: Signer) -> None:
        self._inner, self._signer = inner, signer
        self._refused: SignatureRefused | None = None

    def next(self, timeout: float | None) -> list[tuple[Position, bytes]] | None:
        if self._refused is not None:
            raise self._refused.with_traceback(None)
        came = self._inner.next(timeout)
        if came is None:
            return None
        frames: list[tuple[Position, bytes]] = []
        try:
            for position, signed in came:
                frames.append((position, self._signer.open(str(position), signed)))
        except SignatureRefused as refused:
            self._refused = refused
            if not frames:
                raise
        return frames

    def check_end(self) -> None:
        self._inner.check_end()

    def close(self) -> None:
        self._inner.close()


class SignedTransport:
    """A transport whose frames are signed. Owns ``inner``."""

    def __init__(self, inner: Transport, key: bytes) -> None:
        self.name = inner.name
        self.inner = inner
        self._signer = Signer(key)

    @property
    def epoch(self) -> str:
        return self.inner.epoch

    @property
    def end(self) -> Position:
        return self.inner.end

    def claim(self) -> str:
        return self.inner.claim()

    def begin(self, header: bytes) -> Position:
        return self.inner.begin(self._signer.sign(header))

    def publish(self, frames: Sequence[bytes], *, sync: bool) -> Position:
        return self.inner.publish([self._signer.sign(frame) for frame in frames], sync=sync)

    def subscribe(self, position: Position | None) -> SignedSubscription:
        return SignedSubscription(self.inner.subscribe(position), self._signer)

    def newest_first(self) -> Iterator[list[bytes]]:
        """Raises SignatureRefused too."""
        for piece in self.inner.newest_first():
            yield [self._signer.open("(newest first)", signed) for signed in piece]

    def retain_from(self, position: Position) -> int:
        return self.inner.retain_from(position)

    def close(self) -> None:
        self.inner.close()
