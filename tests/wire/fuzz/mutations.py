"""Ways to change a frame or a segment. Half of them know the format: what checks the changed part fits again, so it is the part itself
that has to be looked at.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import msgpack
import xxhash
import zstandard

from pipeline.wire.envelope import COMPRESSION_DICTIONARY, ENVELOPE_BYTES
from pipeline.wire.records import HEAD_BYTES, record_head

SIZES = (
    0,
    1,
    2,
    255,
    256,
    65535,
    1 << 16,
    (1 << 20) + 1,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
)
"""Where counts, sizes and positions overflow."""
NUMBERS = (*SIZES, 1 << 63, (1 << 64) - 1, -1, -2, -(1 << 31), -(1 << 63))
WORDS = (
    "",
    "kind",
    "rows",
    "items",
    "users",
    "fp64",
    "weight",
    "a/b",
    "../x",
    "x" * 129,
    "é",
    "ids",
    "float32",
    "commit",
    "\x00",
)
HEADS = (
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\x7f\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\x40\x00\x00\x00",
    b"\xc9\x10\x00\x00\x00\x01",
)
"""Msgpack's heads of things that are longer than any memory."""
Mutation = Callable[[random.Random, bytes], bytes]


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut_off(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def add_behind(rng: random.Random, data: bytes) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 64))


def repeat_a_piece(rng: random.Random, data: bytes) -> bytes:
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[start:stop] + data[at:]


def overwrite_a_number(rng: random.Random, data: bytes) -> bytes:
    width = rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(1, len(data) - width))
    return data[:at] + (rng.choice(NUMBERS) % (1 << 8 * width)).to_bytes(width, "little") + data[at + width :]


BLIND: tuple[Mutation, ...] = (flip_bits, cut_off, add_behind, repeat_a_piece, overwrite_a_number)


class FrameSurgeon:
    """Changes what is inside a frame, and makes what is around it fit again. ``dictionary`` is that of the stream's header, if any."""

    def __init__(self, dictionary: bytes) -> None:
        given = (
            zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_FULLDICT) if dictionary else None
        )
        self._open = {False: zstandard.ZstdDecompressor(), True: zstandard.ZstdDecompressor(dict_data=given)}
        self._close = {
            False: zstandard.ZstdCompressor(level=1),
            True: zstandard.ZstdCompressor(level=1, dict_data=given),
        }
        self.mutations: tuple[Mutation, ...] = (
            self.change_a_value,
            self.change_a_value,
            self.change_the_content,
            self.state_another_size,
            self.change_the_compressed,
            self.change_the_envelope,
        )

    def content(self, frame: bytes) -> bytes:
        return self._open[_compression(frame) == COMPRESSION_DICTIONARY].decompress(frame[ENVELOPE_BYTES:])

    def seal_again(self, frame: bytes, content: bytes) -> bytes:
        body = self._close[_compression(frame) == COMPRESSION_DICTIONARY].compress(content)
        return _checked(frame[:8] + struct.pack("<Q", len(content)), body)

    def change_a_value(self, rng: random.Random, frame: bytes) -> bytes:
        """A field gets another value or type, goes away, or comes to it."""
        value = msgpack.unpackb(self.content(frame))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            value = change_somewhere(rng, value)
        try:
            content: bytes = msgpack.packb(value)
        except (OverflowError, ValueError, UnicodeEncodeError):
            return flip_bits(rng, frame)
        return self.seal_again(frame, content)

    def change_the_content(self, rng: random.Random, frame: bytes) -> bytes:
        content = self.content(frame)
        if rng.random() < 0.3:
            at = rng.randrange(len(content))
            return self.seal_again(frame, content[:at] + rng.choice(HEADS) + content[at + 1 :])
        return self.seal_again(frame, rng.choice(BLIND)(rng, content) or b"\x80")

    def state_another_size(self, rng: random.Random, frame: bytes) -> bytes:
        """In the envelope, and in zstd's own head where that has room: one segment, 8 bytes of content size."""
        size, body = rng.choice(SIZES), frame[ENVELOPE_BYTES:]
        if rng.random() < 0.5:
            block = body[-min(len(body), 40) :]
            body = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size) + block
        return _checked(frame[:8] + struct.pack("<Q", size), body)

    def change_the_compressed(self, rng: random.Random, frame: bytes) -> bytes:
        return _checked(frame[:16], rng.choice(BLIND)(rng, frame[ENVELOPE_BYTES:]))

    def change_the_envelope(self, rng: random.Random, frame: bytes) -> bytes:
        return _checked(overwrite_a_number(rng, frame[:16]), frame[ENVELOPE_BYTES:])


def change_somewhere(rng: random.Random, value: Any) -> Any:
    """``value`` with one part changed, at any depth."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key, changed = rng.choice(list(value)), dict(value)
        what = rng.random()
        if what < 0.08:
            del changed[key]
        elif what < 0.16:
            changed[rng.choice(WORDS)] = changed[key]
        else:
            changed[key] = change_somewhere(rng, value[key])
        return changed
    if isinstance(value, list) and value and rng.random() < 0.9:
        at, what = rng.randrange(len(value)), rng.random()
        if what < 0.1:
            return value[:at] + value[at + 1 :]
        if what < 0.2:
            return value[: at + 1] * 2 + value[at + 1 :]
        return [*value[:at], change_somewhere(rng, value[at]), *value[at + 1 :]]
    return another(rng, value)


def another(rng: random.Random, value: Any) -> Any:
    """Something else in the place of a leaf: mostly of the same type."""
    if rng.random() < 0.1:
        return rng.choice((None, True, 0, 1.5, "", b"", [], {}, [[]], float("nan"), float("inf"), 1 << 63))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice(NUMBERS) if rng.random() < 0.5 else value + rng.choice((-8, -1, 1, 2, 8))
    if isinstance(value, bytes) and value:
        return rng.choice(BLIND)(rng, value)
    if isinstance(value, str):
        return rng.choice(WORDS) if rng.random() < 0.7 else value + "x"
    return rng.choice(NUMBERS)


def _compression(frame: bytes) -> int:
    return int.from_bytes(frame[6:8], "little")


def _checked(prefix: bytes, body: bytes) -> bytes:
    return prefix + struct.pack("<Q", xxhash.xxh64_intdigest(prefix + body)) + body


def change_a_record(rng: random.Random, segment: bytes) -> bytes:
    """One record of a segment says another length, checksum or durable offset, its own checksum made anew; or its payload is another."""
    starts, at = [], 0
    while at + HEAD_BYTES <= len(segment):
        starts.append(at)
        at += HEAD_BYTES + int.from_bytes(segment[at + 4 : at + 8], "little")
    at = rng.choice(starts)
    length = int.from_bytes(segment[at + 4 : at + 8], "little")
    payload = segment[at + HEAD_BYTES : at + HEAD_BYTES + length]
    what = rng.random()
    if what < 0.3:
        payload = rng.choice(BLIND)(rng, payload)
        return segment[:at] + record_head(payload, at, 0) + payload + segment[at + HEAD_BYTES + length :]
    head = bytearray(segment[at : at + 24])
    if what < 0.6:
        head[4:8] = (rng.choice(SIZES) % (1 << 32)).to_bytes(4, "little")
    elif what < 0.8:
        head[8:16] = rng.choice(SIZES).to_bytes(8, "little")
    else:
        head[16:24] = rng.randbytes(8)
    check = xxhash.xxh64_intdigest(bytes(head), seed=at)
    return segment[:at] + bytes(head) + check.to_bytes(8, "little") + segment[at + HEAD_BYTES :]
