"""Which segments the kept checkpoints of a run need: held in its log, or as files that a log elsewhere has left.

A segment's file goes when the catalog on disk names no checkpoint any more that needs it, never before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipeline.files import Files
from pipeline.rowlog import CheckpointReader
from pipeline.rowlog.log import Beginning, Held, RowLog, SavedRows


class Retention:
    """``checkpoints``: those that a run finds, newest first; ``directories``: where its log lies, absolute paths."""

    def __init__(
        self, files: Files, keep: int, checkpoints: Sequence[CheckpointReader], directories: Sequence[str]
    ) -> None:
        self.keep, self._files = keep, files
        here = [one for one in checkpoints if _lie_in(one.saved, directories)]
        elsewhere = [one for one in checkpoints if one not in here]
        self._names = [one.name for one in here]
        self._held: dict[str, Held] = {}
        self._foreign = {one.name: [segment.path for segment in one.saved.all_segments()] for one in elsewhere}
        self.goes_on = bool(checkpoints) and checkpoints[0] in here
        """Whether the log begins with the newest checkpoint as it lies; else its rows have to be read and put."""
        newest = checkpoints[0].saved if self.goes_on else None
        self.beginning = Beginning(newest, [one.saved for one in here], [one.saved for one in elsewhere])

    def opened(self, log: RowLog) -> None:
        """The log was opened with ``beginning``."""
        self._held = dict(zip(self._names, log.held, strict=True))

    def committed(self, name: str, held: Held, names: Sequence[str]) -> None:
        """A checkpoint is durable, and ``names`` are those that the catalog names now: let go of what only others needed."""
        self._held[name] = held
        for gone in [name for name in self._held if name not in names]:
            self._held.pop(gone).release()
        for gone in [name for name in self._foreign if name not in names]:
            paths = set(self._foreign.pop(gone))
            for path in sorted(paths.difference(*self._foreign.values())):
                if self._files.exists(path):
                    self._files.remove(path)


def _lie_in(saved: SavedRows, directories: Sequence[str]) -> bool:
    return all(os.path.dirname(segment.path) in directories for segment in saved.all_segments())
