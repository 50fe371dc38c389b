"""What can go wrong with a log. Every error names the file and, where there is one, the line."""

from __future__ import annotations

from collections.abc import Sequence


class LogError(ValueError):
    """Base: a log that cannot be read as the config says."""


class NoSuchLog(LogError):
    def __init__(self, pattern: str) -> None:
        super().__init__(
            f"no file matches {pattern!r}: check the path (relative paths start at the working directory; logs are "
            "often found through the environment variable ROWSTREAM_DATA)"
        )


class UnreadableLog(LogError):
    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"{file}: cannot be read: {why}")


class TruncatedLog(LogError):
    def __init__(self, file: str, kind: str, line: int) -> None:
        super().__init__(
            f"{file}, line {line}: the {kind} stream ends too early; the file was cut short. Copy it again."
        )


class CorruptLog(LogError):
    def __init__(self, file: str, line: int, what: str) -> None:
        super().__init__(f"{file}, line {line} or later: {what}")


class MissingColumns(LogError):
    def __init__(self, file: str, missing: Sequence[str], found: Sequence[str]) -> None:
        super().__init__(f"{file}: no column {', '.join(map(repr, missing))}; there are {list(found)}")


class RepeatedColumn(LogError):
    def __init__(self, file: str, name: str) -> None:
        super().__init__(
            f"{file}: the column {name!r} is there twice; name the columns with `columns` and `header: false`"
        )


class BadLine(LogError):
    """One row that cannot be used. ``unit`` is ``line`` or ``row``; both count from 1."""

    def __init__(self, file: str, unit: str, number: int, what: str) -> None:
        super().__init__(f"{file}, {unit} {number}: {what}")


class TooManySkipped(LogError):
    def __init__(self, last: str, skipped: int, max_skipped: int) -> None:
        super().__init__(
            f"{skipped} bad lines were met and max_skipped is {max_skipped}; the last: {last}. "
            "Repair the log, or raise max_skipped."
        )


class EmptyLog(LogError):
    def __init__(self, files: Sequence[str]) -> None:
        shown = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        super().__init__(f"the log holds no usable row: {shown}")


class LateFile(LogError):
    def __init__(self, name: str, current: str) -> None:
        super().__init__(
            f"{name} sorts before {current}, which was already taken: files of a followed log must appear in name "
            "order. Rename it so that it sorts last."
        )


class ChangedLog(LogError):
    def __init__(self, what: str) -> None:
        super().__init__(
            f"the log is not the one that the cursor came from: {what}. Resume with the same files, or start a new run."
        )
