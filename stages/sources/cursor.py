"""Where a source stands: all that is needed to go on with exactly the batch that follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from stages.logs.tables import Place


@dataclass(frozen=True, slots=True)
class Cursor:
    """A segment's begin and how much of it was yielded. A segment is a window of the shuffle, or, without one, a
    block of the log.

    Reading starts at ``offset`` of ``file`` (``""``: the first one); ``drop`` samples there belong to earlier segments.
    """

    epoch: int = 0
    file: str = ""
    offset: int = 0
    line: int = 1
    drop: int = 0
    index: int = 0
    """Samples of this epoch before the segment."""
    skipped: int = 0
    """Bad lines before the segment, all epochs together."""
    taken: int = 0
    """Samples of the segment, in the order in which it is yielded, that were yielded."""
    samples: int = 0
    """Samples yielded, all epochs together."""
    reported: int = 0
    """Bad lines reported up to here."""

    @property
    def place(self) -> Place:
        return Place(self.offset, self.line)

    def state(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(state: Mapping[str, Any]) -> Cursor:
        return Cursor(**{field.name: state[field.name] for field in fields(Cursor)})

    def behind(self, taken: int, samples: int, reported: int) -> Cursor:
        return replace(self, taken=taken, samples=samples, reported=reported)
