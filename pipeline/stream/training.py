"""A zstd dictionary from the first frames of a stream.

What frames have in common are the names of their fields and tables, and much of ids, versions and clocks: of a short frame that is a good
part. So the beginnings of frames are the samples.
"""

from __future__ import annotations

from typing import Final

import zstandard

NUM_SAMPLES: Final = 128
SAMPLE_BYTES: Final = 4096
"""Of a frame's content, at most."""
_SEGMENT_BYTES, _WORD_BYTES = 256, 8
"""Parameters of zstd's COVER algorithm, so that it need not look for the best: milliseconds instead of seconds."""


class DictionaryTrainer:
    """Collects samples, then trains once. Not thread-safe."""

    def __init__(self, dictionary_bytes: int) -> None:
        self._dictionary_bytes = dictionary_bytes
        self._samples: list[bytes] = []

    def add(self, content: bytes | memoryview) -> bool:
        """Copies the beginning. Returns whether there are enough samples."""
        self._samples.append(bytes(memoryview(content)[:SAMPLE_BYTES]))
        return len(self._samples) >= NUM_SAMPLES

    def train(self) -> bytes:
        """The dictionary; none where the samples have nothing in common that would make one."""
        try:
            trained = zstandard.train_dictionary(self._dictionary_bytes, self._samples, k=_SEGMENT_BYTES, d=_WORD_BYTES)  # type: ignore[arg-type]
        except zstandard.ZstdError:
            return b""
        return trained.as_bytes()
