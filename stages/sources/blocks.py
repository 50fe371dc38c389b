"""What goes into the arranger, and what comes out: blocks of samples, batches with their cursors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.items import Int64s, RawBatch
from stages.sources.cursor import Cursor
from stages.sources.samples import Samples


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What becomes of the log's samples. ``shuffle`` is the window's size, 0 for none; ``take`` None is no limit."""

    batch_size: int
    shuffle: int
    seed: int
    skip: int
    take: int | None
    drop_last: bool


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive samples of one file. ``skipped_s``: for each bad line, how many samples of the block precede it."""

    samples: Samples
    file: str
    offset: int
    line: int
    drop: int
    """Samples between ``offset`` and the block."""
    skipped_s: Int64s


@dataclass(frozen=True, slots=True)
class Arranged:
    """A batch and the cursor behind it."""

    batch: RawBatch
    cursor: Cursor

    @property
    def nbytes(self) -> int:
        return self.batch.nbytes


def raw_batch(samples: Samples, cursor: Cursor, first: int) -> RawBatch:
    where: dict[str, Any] = {"epoch": cursor.epoch, "file": cursor.file, "sample": cursor.index + cursor.taken}
    if samples.times_b is not None:
        where["time"] = int(samples.times_b[-1])
    return RawBatch(
        num_samples=samples.num_samples,
        features=samples.features,
        dense_bd=samples.dense_bd,
        labels_b=samples.labels_b,
        cursor=where,
        first_row=first,
    )
