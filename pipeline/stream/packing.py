"""How frames are packed: which parts of them are byte-shuffled, how they are compressed, and with which dictionary.

Measured on cuts of a second of globo and brunch (the table is in ``CUTS.md``): shuffled ids and versions are smaller and take less time,
the shuffle included; rows of int8 and int4 get smaller for 20 ns each, those of bf16 for 200. Those of fp16 do not. fp32 would by 7 %,
for as long as all the rest takes. Ids that rise travel as differences, a byte or more smaller. At levels of 1 and more, rows that are
shuffled anyway are put into the order of their ids for that, which takes 70 ns a row.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.stream.training import DictionaryTrainer
from pipeline.stream.whole_cut import WholeFrame
from pipeline.wire.blocks import block_ends
from pipeline.wire.encoding import frame_content
from pipeline.wire.envelope import seal
from pipeline.wire.frames import Frame, HeaderFrame, RowsFrame, StreamedTable
from pipeline.wire.row_runs import RunHead

Shuffle = Literal["auto", "always", "never"]
LEAST_ITEMS = 64
"""Fewer gain less than it takes to say that they are shuffled."""
CODECS = ("bf16", "int8", "int4")
"""Whose rows ``auto`` shuffles."""
LEAST_LEVEL = 1
"""Of zstd, from which on bytes count more than time: rows are put into the order of their ids, and blocks end where places of a row do."""


class Packer:
    """Frames to bytes. Frames may be packed by several threads at once."""

    def __init__(
        self,
        tables: Sequence[StreamedTable],
        level: int,
        shuffle: Shuffle = "auto",
        dictionary_bytes: int = 0,
    ) -> None:
        """``dictionary_bytes``: of a dictionary that is trained on the first frames, 0: none is."""
        self._level, self._shuffle, self._small = level, shuffle, level >= LEAST_LEVEL
        self._codecs: Mapping[str, str] = {table.spec.name: table.codec for table in tables}
        self.dictionary = b""
        """What a header has to bring before the next frame; it stays when it is there."""
        self._brought = b""
        self._training = DictionaryTrainer(dictionary_bytes) if dictionary_bytes else None
        self._lock = threading.Lock()

    def adopt(self, dictionary: bytes) -> None:
        """Before the first frame: use the dictionary of an earlier generation, if there is one and one is wanted, instead of a new one."""
        if self._training is not None and dictionary:
            self.dictionary, self._training = dictionary, None

    def shuffled(self, heads: Sequence[RunHead]) -> tuple[str, ...]:
        """Which parts of a frame of these runs travel shuffled."""
        if self._shuffle == "never":
            return ()
        num_rows, num_dead = sum(head.num_rows for head in heads), sum(head.num_dead for head in heads)
        if self._shuffle == "auto" and num_rows < LEAST_ITEMS and num_dead < LEAST_ITEMS:
            return ()
        rows = self._shuffle == "always" or all(self._codecs[head.table] in CODECS for head in heads if head.num_rows)
        parts = {"ids": num_rows, "rows": num_rows * rows, "versions": num_rows, "dead": num_dead}
        return tuple(part for part, items in parts.items() if items)

    def arranged(self, frame: RowsFrame) -> RowsFrame:
        """``frame`` with what is to be said of how it travels."""
        heads, rows = frame.rows.heads, frame.rows
        shuffled = self.shuffled(heads)
        numbers = {"ids": rows.ids_n, "dead": rows.tombstones_m}
        delta = tuple(part for part in numbers if part in shuffled and _rises(numbers[part], len(heads)))
        return replace(frame, shuffled=shuffled, delta=delta)

    def arranged_in_order(self, frame: RowsFrame) -> RowsFrame:
        """The same for a frame that has only its heads yet. Where ids travel as differences, rows have to be put into their order."""
        shuffled = self.shuffled(frame.rows.heads)
        return replace(frame, shuffled=shuffled, delta=("ids",) if "rows" in shuffled and self._small else ())

    def pack_header(self, header: HeaderFrame) -> bytes:
        """With the dictionary in it. Call ``brought`` when it is published."""
        return seal(frame_content(replace(header, dictionary=self.dictionary)), self._level)

    def brought(self) -> None:
        """The last header is published: frames may be compressed with what it brought."""
        self._brought = self.dictionary

    @property
    def needs_header(self) -> bool:
        """Whether a dictionary was trained that no header has brought."""
        return self._brought != self.dictionary

    def pack(self, frame: Frame | WholeFrame) -> bytes:
        """The bytes of a frame."""
        if isinstance(frame, RowsFrame):
            frame = self.arranged(frame)
        content = frame.content_b.data if isinstance(frame, WholeFrame) else frame_content(frame)
        if self._training is not None:
            self._learn(content)
        return seal(content, self._level, self._brought, self._block_ends(frame))

    def _block_ends(self, frame: Frame | WholeFrame) -> list[int]:
        """None where speed counts: at the levels that leave bytes as they are where they do not come again, nothing is gained."""
        rows = frame.frame if isinstance(frame, WholeFrame) else frame
        return block_ends(rows) if self._small and isinstance(rows, RowsFrame) else []

    def _learn(self, content: bytes | memoryview) -> None:
        with self._lock:
            if self._training is not None and self._training.add(content):
                self.dictionary, self._training = self._training.train(), None


def _rises(numbers_n: npt.NDArray[np.int64], num_runs: int) -> bool:
    """Whether they fall nowhere, or only where another run may begin."""
    return int(np.count_nonzero(numbers_n[1:] < numbers_n[:-1])) < max(1, num_runs)
