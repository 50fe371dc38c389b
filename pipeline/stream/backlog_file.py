"""What a run that ended could not publish, written down: ``RUN_DIR/backlog.json``.

No ids: the rows that changed behind the step of the last cut are in the run's newest checkpoint, each with the step of its last update.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.files import Files, write_atomically
from pipeline.wire.frames import CutPosition

BACKLOG_FILE = "backlog.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Backlog:
    position: CutPosition
    """The last cut that was acknowledged."""
    step: int
    """Its step: what changed behind it is not published."""
    last_step: int
    """The last one that ended."""
    rows: int
    """At most so many rows, repeated ones counted as often."""
    reason: str
    """What the transport said last."""


def save_backlog(files: Files, directory: Path, backlog: Backlog) -> None:
    """Durable when it returns."""
    described = {"format": FORMAT_VERSION, **asdict(backlog), "position": list(backlog.position)}
    write_atomically(files, str(directory / BACKLOG_FILE), (json.dumps(described, indent=1) + "\n").encode())


def read_backlog(directory: Path) -> Backlog | None:
    """None where everything was published, or nobody says that something was not."""
    try:
        described = json.loads((directory / BACKLOG_FILE).read_text())
    except FileNotFoundError:
        return None
    generation, cut = described["position"]
    known = {name: described[name] for name in ("step", "last_step", "rows", "reason")}
    return Backlog(CutPosition(generation, cut), **known)


def remove_backlog(files: Files, directory: Path) -> None:
    """Everything is published."""
    path = directory / BACKLOG_FILE
    if os.path.exists(path):
        files.remove(str(path))
        files.sync_dir(str(directory))
