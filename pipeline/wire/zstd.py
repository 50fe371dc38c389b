"""zstd with and without a dictionary; contexts are costly to make and not to be shared, so each thread keeps its own.

A dictionary is one that zstd itself trained: it begins with zstd's magic number and names its own tables. What cannot be one is
refused before it is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import zstandard

DICTIONARY_MAGIC = b"\x37\xa4\x30\xec"
MAX_KEPT = 8
"""Contexts that a thread keeps."""

_local = threading.local()


def compress(
    content: bytes | bytearray | memoryview, level: int, dictionary: bytes = b"", ends: Sequence[int] = ()
) -> bytes:
    """One zstd frame that states its content size. A block ends at each of ``ends``, rising offsets, whatever zstd would do itself."""
    compressor = _compressor(level, dictionary)
    if not ends:
        return compressor.compress(content)
    view, stream = memoryview(content), compressor.compressobj(size=len(content))
    made = list[bytes]()
    for start, end in pairwise([0, *ends]):
        made += [stream.compress(view[start:end]), stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    return b"".join([*made, stream.compress(view[ends[-1] :]), stream.flush()])


def decompress(body: bytes | memoryview, size: int, dictionary: bytes = b"") -> bytes:
    """``size`` bytes at most. Raises zstandard.ZstdError, also for what is no dictionary."""
    return _decompressor(dictionary).decompress(body, max_output_size=size, allow_extra_data=False)


def check_dictionary(dictionary: bytes) -> None:
    """Raises ValueError for what zstd does not take as a dictionary."""
    if not dictionary.startswith(DICTIONARY_MAGIC):
        raise ValueError(f"begins with {dictionary[:4]!r}, expected zstd's {DICTIONARY_MAGIC!r}")
    try:
        decompress(_EMPTY, 0, dictionary)
    except zstandard.ZstdError as error:
        raise ValueError(f"zstd does not take it: {error}") from error


_EMPTY = zstandard.ZstdCompressor().compress(b"")


@lru_cache(maxsize=MAX_KEPT)
def _loaded(dictionary: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_FULLDICT)


def _decompressor(dictionary: bytes) -> zstandard.ZstdDecompressor:
    def make() -> zstandard.ZstdDecompressor:
        return zstandard.ZstdDecompressor(dict_data=_loaded(dictionary) if dictionary else None)

    decompressor: zstandard.ZstdDecompressor = _kept(dictionary, make)
    return decompressor


def _compressor(level: int, dictionary: bytes) -> zstandard.ZstdCompressor:
    def make() -> zstandard.ZstdCompressor:
        loaded = _loaded(dictionary) if dictionary else None
        return zstandard.ZstdCompressor(level=level, dict_data=loaded, write_content_size=True, write_checksum=False)

    compressor: zstandard.ZstdCompressor = _kept((level, dictionary), make)
    return compressor


def _kept(key: Hashable, make: Callable[[], Any]) -> Any:
    """This thread's context for ``key``."""
    kept: dict[Hashable, Any] | None = getattr(_local, "kept", None)
    if kept is None:
        kept = _local.kept = {}
    if key not in kept:
        if len(kept) >= MAX_KEPT:
            kept.clear()
        kept[key] = make()
    return kept[key]
