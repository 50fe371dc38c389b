"""Which files a log is made of, and in which order.

Patterns are taken as given; the files of one pattern in natural order of their names (``part-9`` before ``part-10``).
A file's ``name`` is its path below the pattern's fixed directory, so a log may move as a whole; with several patterns
the pattern's number goes in front.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.logs.errors import NoSuchLog

DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class LogFile:
    """``name`` is what cursors hold; ``path`` is where it is now."""

    name: str
    path: str


NaturalKey = tuple[tuple[tuple[int, int, str], ...], str]


def natural_key(name: str) -> NaturalKey:
    """Sorts runs of digits as numbers; names that differ only in leading zeros sort as text."""
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in DIGITS.split(name) if part)
    return parts, name


def _fixed_directory(pattern: str) -> str:
    parts = Path(pattern).parts
    fixed = [part for i, part in enumerate(parts) if not any(map(glob.has_magic, parts[: i + 1]))]
    fixed = fixed[:-1] if len(fixed) == len(parts) else fixed
    return os.path.join(*fixed) if fixed else ""


def _matches(pattern: str) -> list[str]:
    if glob.has_magic(pattern):
        return [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    return [pattern] if os.path.exists(pattern) else []


def find_files(patterns: Sequence[str], *, may_be_none: bool = False) -> list[LogFile]:
    """All files, in order. Blocks. Raises NoSuchLog when a pattern matches nothing, unless ``may_be_none``."""
    found: list[LogFile] = []
    for number, pattern in enumerate(patterns):
        base, prefix = _fixed_directory(pattern), f"{number}/" if len(patterns) > 1 else ""
        files = [LogFile(prefix + os.path.relpath(path, base or "."), path) for path in _matches(pattern)]
        if not files and not may_be_none:
            raise NoSuchLog(pattern)
        found += sorted(files, key=lambda file: natural_key(file.name))
    return found
