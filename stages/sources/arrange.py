"""From the blocks of a log to batches: limits, shuffle windows, batches of one size across all borders. Decides; does
no I/O.

The shuffle permutes within windows of N consecutive samples by a seeded permutation, a pure function of (seed, epoch,
window). So nothing of the shuffle need be saved: a resumed source reads the window again and drops what was yielded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from stages.items import Int64s
from stages.mixing import key_of, permutation
from stages.sources.blocks import Arranged, Arrangement, Block, raw_batch
from stages.sources.cursor import Cursor
from stages.sources.samples import Samples, join

SHUFFLE_KEY = 0x5EED


@dataclass(slots=True)
class _Segment:
    samples: Samples
    begin: Cursor
    skipped_s: Int64s
    used: int

    def skipped(self) -> int:
        """Bad lines before the next sample of this segment; those within a shuffled one count when it has ended."""
        return self.begin.skipped + int(np.searchsorted(self.skipped_s, self.used))


class Arranger:
    """Takes blocks in order, returns batches. One thread at a time. ``cursor`` says where the first block begins."""

    def __init__(self, plan: Arrangement, cursor: Cursor) -> None:
        self.plan = plan
        self._drop = cursor.drop if cursor.file else plan.skip
        self._taken = cursor.taken
        self._epoch, self._index = cursor.epoch, cursor.index
        self._samples = cursor.samples
        self._skipped = cursor.skipped
        self._trailing = 0
        self._at = ("", -1)
        self._window: list[Samples] = []
        self._window_begin: Cursor | None = None
        self._ready: deque[_Segment] = deque()
        self._num_ready = 0
        self._last: Cursor | None = None

    @property
    def skipped(self) -> int:
        """Bad lines met so far."""
        return self._skipped + self._trailing

    @property
    def empty(self) -> bool:
        """No sample was ever met."""
        return self._samples + self._index + self._epoch == 0

    @property
    def full(self) -> bool:
        """The epoch has all the samples that it may have."""
        return self.plan.take is not None and self._index >= self.plan.take

    def add(self, block: Block) -> list[Arranged]:
        """Take the next block of this epoch."""
        samples, lead = block.samples, min(self._drop, block.samples.num_samples)
        skipped_s = self._lines_in(block)
        skipped_s = skipped_s[skipped_s >= self._drop] - lead
        self._drop -= lead
        stop = samples.num_samples
        if self.plan.take is not None:
            stop = min(stop, lead + self.plan.take - self._index)
        begin = Cursor(
            epoch=self._epoch,
            file=block.file,
            offset=block.offset,
            line=block.line,
            drop=block.drop + lead,
            index=self._index,
        )
        self._take(samples.cut(lead, stop), begin, skipped_s)
        self._trailing = int(np.count_nonzero(skipped_s == samples.num_samples - lead))
        self._skipped += len(skipped_s) - self._trailing
        return self._batches()

    def _lines_in(self, block: Block) -> Int64s:
        """The block's bad lines. Who resumes at (offset, drop) reads the lines behind the last sample dropped again:
        so those at the end of a block belong to the next one, if that one has the same offset."""
        at, carried = (block.file, block.offset), self._trailing
        if at != self._at:
            self._skipped, self._at, carried = self._skipped + carried, at, 0
        self._trailing = 0
        return np.concatenate([np.zeros(carried, np.int64), block.skipped_s])

    def _take(self, samples: Samples, begin: Cursor, skipped_s: Int64s) -> None:
        if self.plan.shuffle == 0:
            if samples.num_samples:
                self._put(samples, replace(begin, skipped=self._skipped), skipped_s)
            self._index += samples.num_samples
            return
        at = 0
        while at < samples.num_samples:
            if self._window_begin is None:
                before = int(np.searchsorted(skipped_s, at))
                self._window_begin = replace(
                    begin, drop=begin.drop + at, index=self._index, skipped=self._skipped + before
                )
            room = self.plan.shuffle - (self._index - self._window_begin.index)
            part = samples.cut(at, min(at + room, samples.num_samples))
            self._window.append(part)
            at += part.num_samples
            self._index += part.num_samples
            if part.num_samples == room:
                self._close_window()

    def _close_window(self) -> None:
        """Permute what the window holds and make it ready."""
        if self._window_begin is None:
            return
        begin, self._window_begin = self._window_begin, None
        samples, self._window = join(self._window), []
        number = begin.index // self.plan.shuffle
        key = key_of(self.plan.seed, SHUFFLE_KEY, begin.epoch, number)
        self._put(samples.take(permutation(key, samples.num_samples)), begin, np.zeros(0, np.int64))

    def _put(self, samples: Samples, begin: Cursor, skipped_s: Int64s) -> None:
        used = min(self._taken, samples.num_samples)
        self._taken -= used
        self._ready.append(_Segment(samples, begin, skipped_s, used))
        self._num_ready += samples.num_samples - used

    def end_epoch(self) -> list[Arranged]:
        """The log ended, or ``full``: the next block is the first of the next epoch."""
        self._close_window()
        self._epoch += 1
        self._index, self._drop = 0, self.plan.skip
        return self._batches()

    def finish(self) -> list[Arranged]:
        """What is left: one short batch, or none."""
        self._close_window()
        batches = self._batches()
        if self._num_ready and not self.plan.drop_last:
            batches.append(self._batch(self._num_ready))
        return batches

    def _batches(self) -> list[Arranged]:
        batches = []
        while self._num_ready >= self.plan.batch_size:
            batches.append(self._batch(self.plan.batch_size))
        return batches

    def _batch(self, size: int) -> Arranged:
        parts: list[Samples] = []
        left = size
        while left:
            segment = self._ready[0]
            stop = min(segment.used + left, segment.samples.num_samples)
            if stop > segment.used:
                parts.append(segment.samples.cut(segment.used, stop))
            left -= stop - segment.used
            segment.used = stop
            if stop == segment.samples.num_samples:
                self._ready.popleft()
        self._num_ready -= size
        first, self._samples = self._samples, self._samples + size
        cursor = segment.begin.behind(segment.used, self._samples, segment.skipped())
        return Arranged(raw_batch(join(parts), cursor, first), cursor)
