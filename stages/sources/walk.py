"""Which file of a log comes next, and whether a resumed log is still the same. Pure: listings go in, decisions come
out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import xxhash

from stages.logs.errors import ChangedLog, LateFile
from stages.logs.files import LogFile, natural_key

HASH_BYTES = 8


def hash_names(names: Iterable[str]) -> bytes:
    """8 bytes a name, in order."""
    return np.array([xxhash.xxh64_intdigest(name.encode()) for name in names], dtype="<u8").tobytes()


class Walk:
    """Goes through the files of a log. ``hashes`` are those of a resumed walk's names, ``b""`` for a new one."""

    def __init__(self, follow: bool, hashes: bytes = b"") -> None:
        self._follow = follow
        self._hashes = hashes
        self._names: list[str] = []
        self._listed: set[str] = set()

    def begin(self, files: Sequence[LogFile], current: str, *, whole: bool) -> list[LogFile]:
        """The files from ``current`` on (``""``: all). ``whole``: the log is read more than once, so no file may be
        gone or new.

        Raises ChangedLog, LateFile.
        """
        names = [file.name for file in files]
        self._listed = set(names)
        if not current:
            self._names = [] if self._follow else names
            return list(files)
        if current not in self._listed:
            raise ChangedLog(f"{current} is gone")
        at = names.index(current)
        self._check_past(names, at, whole)
        self._names = names[: at + 1] if self._follow else names
        return list(files[at:])

    def _check_past(self, names: list[str], at: int, whole: bool) -> None:
        if self._follow:
            known = {self._hashes[i : i + HASH_BYTES] for i in range(0, len(self._hashes), HASH_BYTES)}
            for name in names[:at]:
                if hash_names([name]) not in known:
                    raise LateFile(name, names[at])
        elif whole and hash_names(names) != self._hashes:
            raise ChangedLog("files were added, renamed or taken away, and the log is read more than once")
        elif hash_names(names[: at + 1]) != self._hashes[: (at + 1) * HASH_BYTES]:
            raise ChangedLog(f"the files up to {names[at]} are not those that were read")

    def next(self, files: Sequence[LogFile]) -> LogFile | None:
        """The next file of a followed log, None when there is none yet. Raises LateFile."""
        self._listed = {file.name for file in files}
        taken = set(self._names)
        new = [file for file in files if file.name not in taken]
        if not new:
            return None
        if self._names and natural_key(new[0].name) < natural_key(self._names[-1]):
            raise LateFile(new[0].name, self._names[-1])
        return new[0]

    def take(self, file: LogFile) -> None:
        """``file`` of a followed log is being read."""
        self._names.append(file.name)

    def hashes(self, current: str) -> bytes:
        """What a resumed walk needs that stands in ``current``. Names of files that are gone are forgotten."""
        if not self._names:
            return self._hashes
        if not self._follow:
            return hash_names(self._names)
        upto = self._names[: self._names.index(current) + 1] if current in self._names else []
        return hash_names(name for name in upto if name in self._listed)
