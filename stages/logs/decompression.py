"""Decompression of a byte stream in pieces: gzip (any number of members), zstd (any number of frames) or none."""

from __future__ import annotations

import zlib
from typing import Any, Literal

import zstandard

Compression = Literal["auto", "none", "gzip", "zstd"]
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
SLICE_BYTES = 4096
"""Compressed bytes taken at once: what they unpack to is what memory is needed for beyond a block."""


class BadCompression(Exception):
    """The compressed stream is damaged, or cut short (``truncated``)."""

    def __init__(self, what: str, *, truncated: bool) -> None:
        super().__init__(what)
        self.truncated = truncated


def detect(head: bytes) -> Literal["none", "gzip", "zstd"]:
    """Tell the compression from a file's first four bytes."""
    if head.startswith(GZIP_MAGIC):
        return "gzip"
    return "zstd" if head.startswith(ZSTD_MAGIC) else "none"


class Decompressor:
    """Feed it the file's bytes in order; ``finish`` tells whether the stream was whole."""

    def __init__(self, kind: Literal["none", "gzip", "zstd"]) -> None:
        self.kind = kind
        self._member: Any = None

    def feed(self, data: bytes) -> bytes:
        """Decompress ``data``. Raises BadCompression."""
        if self.kind == "none":
            return data
        pieces: list[bytes] = []
        view = memoryview(data)
        for start in range(0, len(data), SLICE_BYTES):
            self._feed_slice(bytes(view[start : start + SLICE_BYTES]), pieces)
        return b"".join(pieces)

    def _feed_slice(self, data: bytes, pieces: list[bytes]) -> None:
        while data:
            if self._member is None:
                self._member = self._new_member()
            try:
                pieces.append(self._member.decompress(data))
            except (zlib.error, zstandard.ZstdError) as error:
                raise BadCompression(str(error), truncated=False) from error
            if not self._member.eof:
                return
            data, self._member = self._member.unused_data, None
            if self.kind == "gzip":
                data = data.lstrip(b"\0")  # tapes and some writers pad with zeros between members

    def _new_member(self) -> Any:
        if self.kind == "gzip":
            return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        return zstandard.ZstdDecompressor().decompressobj()

    def finish(self) -> None:
        """Raises BadCompression when the stream ends inside a member."""
        if self._member is not None:
            raise BadCompression("it ends inside a member", truncated=True)
