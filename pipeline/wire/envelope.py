"""The envelope of a frame: magic, format version, size, checksum, and the zstd-compressed content.

bytes 0..4    magic ``RSFR``
bytes 4..6    format version, u16 little endian
bytes 6..8    compression, u16: 1 = one zstd frame that states its content size; 2 = the same, with the header's dictionary
bytes 8..16   size of the content after decompression, u64
bytes 16..24  xxh64 (seed 0) of bytes 0..16 and of everything from byte 24 on, u64
bytes 24..    the compressed content
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import xxhash
import zstandard

from pipeline.wire.errors import FrameError
from pipeline.wire.frames import FrameLimits
from pipeline.wire.zstd import compress, decompress

MAGIC = b"RSFR"
SIGNED_MAGIC = b"RSSG"
"""Begins a frame inside a signature (``signing``)."""
FORMAT_VERSION = 2
READS = (1, 2)
"""Version 1 had less fields, and no dictionary: all that it could say means the same today."""
COMPRESSION_ZSTD = 1
COMPRESSION_DICTIONARY = 2
_PREFIX = struct.Struct("<4sHHQ")
_CHECKSUM = struct.Struct("<Q")
ENVELOPE_BYTES = _PREFIX.size + _CHECKSUM.size
DEFAULT_LEVEL = -1
"""Trained fp16 rows of 64 weights: 24 ns and 130 bytes a row; level 1: 115 ns and 119 bytes; 3: 207 ns and 119 bytes."""


def seal(
    content: bytes | bytearray | memoryview,
    level: int = DEFAULT_LEVEL,
    dictionary: bytes = b"",
    ends: Sequence[int] = (),
) -> bytes:
    """Compress ``content``, with a dictionary if there is one, in blocks that end at ``ends``, and put it into an envelope."""
    body = compress(content, level, dictionary, ends)
    compression = COMPRESSION_DICTIONARY if dictionary else COMPRESSION_ZSTD
    prefix = _PREFIX.pack(MAGIC, FORMAT_VERSION, compression, len(content))
    return b"".join((prefix, _CHECKSUM.pack(_checksum(prefix, body)), body))


def unseal(frame: bytes | memoryview, limits: FrameLimits, dictionary: bytes = b"") -> bytes:
    """The content of a frame. ``dictionary`` is the header's. Raises FrameError; every size is checked before memory is taken for it."""
    view = memoryview(frame)
    if not ENVELOPE_BYTES < len(view) <= limits.frame_bytes:
        raise FrameError(f"{len(view)} bytes, expected {ENVELOPE_BYTES + 1} .. {limits.frame_bytes}", "length")
    magic, version, compression, size = _PREFIX.unpack_from(view)
    if magic == SIGNED_MAGIC:
        raise FrameError(
            "this stream is signed; give the key to its reader (signing_key=env:NAME or file:PATH in the transport's settings or URL)",
            "magic",
        )
    if magic != MAGIC:
        raise FrameError(f"begins with {bytes(magic)!r}, expected {MAGIC!r}", "magic")
    if version not in READS:
        known = " and ".join(map(str, READS))
        raise FrameError(f"format version {version}; this build reads versions {known}", "format version")
    body = view[ENVELOPE_BYTES:]
    found, expected = _checksum(view[: _PREFIX.size], body), _CHECKSUM.unpack_from(view, _PREFIX.size)[0]
    if found != expected:
        raise FrameError(f"xxh64 is {found:016x}, the frame says {expected:016x}: its bytes were changed", "checksum")
    if compression == COMPRESSION_ZSTD:
        dictionary = b""
    elif compression != COMPRESSION_DICTIONARY:
        raise FrameError(
            f"compression {compression}; this build reads 1 (zstd) and 2 (with a dictionary)", "compression"
        )
    elif not dictionary:
        raise FrameError("compressed with a dictionary, and the header before it has none", "compression")
    return _decompress(body, size, limits, dictionary)


def _decompress(body: memoryview, size: int, limits: FrameLimits, dictionary: bytes) -> bytes:
    if size > limits.content_bytes:
        raise FrameError(f"{size} bytes after decompression, the limit is {limits.content_bytes}", "content size")
    try:
        stated = zstandard.get_frame_parameters(body).content_size
        if stated != size:
            raise FrameError(f"zstd states {stated} bytes, the envelope {size}", "content size")
        content = decompress(body, size, dictionary)
    except zstandard.ZstdError as error:
        raise FrameError(f"zstd: {error}", "content") from error
    if len(content) != size:
        raise FrameError(f"{len(content)} bytes after decompression, expected {size}", "content size")
    return content


def _checksum(prefix: bytes | memoryview, body: bytes | memoryview) -> int:
    digest = xxhash.xxh64(prefix)
    digest.update(body)
    return digest.intdigest()
