"""The directory of a run: claimed by one process at a time, described by ``run.json``.

run.json        id, generation, seed, environment, effective config; the same of earlier generations; forks
checkpoints/    state, every so often, at a clean end and on interrupt; rows/ in it has the rows, without store.ssd
stream/         segments of frames (while the stream stage is on)
ssd/            rows that left L1 (with store.ssd), and those of checkpoints
spill/          overflow of snapshots; empty between runs
rows.sock       while a run goes on: answers `rows` (owner only)
summary.json    final figures
backlog.json    what could not be published, until it is
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipeline.files import DirectoryLock, Files, RealFiles, is_locked, temporary_name, write_atomically
from pipeline.flow.run_info import Fork, RunInfo
from pipeline.session.errors import NoRun, NoRunDir, RunDirTaken
from pipeline.stream.backlog_file import BACKLOG_FILE

FORMAT_VERSION = 1
NOTED = ("resumed_from", "fork")
OURS = (
    "run.json",
    "summary.json",
    BACKLOG_FILE,
    "checkpoints",
    "stream",
    "ssd",
    "spill",
    "dead_letters",
    "rows.sock",
    "lock",
    ".lock",
)

UNFINISHED = tuple(temporary_name(name) for name in ("run.json", "summary.json", BACKLOG_FILE))


class GoesOn(Protocol):
    @property
    def note(self) -> dict[str, Any]:
        """What is to be kept of this generation besides its record: some of the keys ``NOTED``."""


Found = TypeVar("Found", bound=GoesOn)


@contextmanager
def claim(
    path: Path, *, seed: int, record: dict[str, Any], overwrite: bool, files: Files | None = None
) -> Iterator[RunInfo]:
    """Make ``path`` the directory of a new run, locked while the context lasts.

    Raises RunDirTaken, NoRunDir and LockedDirectory; with ``overwrite`` an old run is removed first. Only what a run wrote is
    removed: a directory that holds anything else is refused.
    """
    files = files or RealFiles()
    with _taken(path, overwrite, files):
        info = RunInfo(uuid.uuid4().hex[:16], path, seed, generation=1)
        _describe(files, path, _first(info, record))
        yield info


@contextmanager
def claim_to_fill(
    path: Path, *, seed: int, record: dict[str, Any], overwrite: bool, files: Files | None = None
) -> Iterator[RunInfo]:
    """As ``claim``, for who writes a first checkpoint: ``run.json`` comes last, when the context ends without an error.

    Until then the directory is no run's, and nothing goes on with what is half written there; an error removes it.
    """
    files = files or RealFiles()
    with _taken(path, overwrite, files):
        info = RunInfo(uuid.uuid4().hex[:16], path, seed, generation=1)
        try:
            yield info
            _describe(files, path, _first(info, record))
        except BaseException:
            _clear(path, overwrite=True)
            raise


@contextmanager
def _taken(path: Path, overwrite: bool, files: Files) -> Iterator[None]:
    try:
        files.make_dirs(str(path))
    except (FileExistsError, NotADirectoryError):
        raise NoRunDir(path) from None
    with DirectoryLock(str(path)):
        _clear(path, overwrite)
        yield


def _first(info: RunInfo, record: Mapping[str, Any]) -> dict[str, Any]:
    """``run.json`` of a run that begins."""
    return {
        "format": FORMAT_VERSION,
        "run_id": info.run_id,
        "generation": info.generation,
        "seed": info.seed,
        "started": time.time(),
        **record,
    }


@contextmanager
def claim_again(
    path: Path, look: Callable[[dict[str, Any]], Found], *, record: dict[str, Any], files: Files | None = None
) -> Iterator[tuple[RunInfo, Found]]:
    """Take over the directory of a run whose process has ended, as its next generation, locked while the context lasts.

    ``look`` is given what ``run.json`` says, under the lock; what it raises leaves the run as it was, what it returns is yielded too.
    The new generation is durable before anything else is done. Raises NoRun, LockedDirectory.
    """
    describe(path)
    with DirectoryLock(str(path)):
        described = describe(path)
        found = look(described)
        kept = ("generation", "started", *NOTED, *record)
        history = [*described.get("history", []), {key: described[key] for key in kept if key in described}]
        lasting = {key: value for key, value in described.items() if key not in NOTED}
        began = {"generation": int(described["generation"]) + 1, "started": time.time()}
        now: dict[str, Any] = {**lasting, **record, **began, **found.note, "history": history}
        info = RunInfo(now["run_id"], path, int(now["seed"]), now["generation"], forks=_forks([*history, now]))
        _describe(files or RealFiles(), path, now)
        yield info, found


def _describe(files: Files, path: Path, described: Mapping[str, Any]) -> None:
    write_atomically(files, str(path / "run.json"), (json.dumps(described, indent=1) + "\n").encode())


def _forks(generations: Sequence[Mapping[str, Any]]) -> tuple[Fork, ...]:
    forks = ((int(one["generation"]), one["fork"]) for one in generations if "fork" in one)
    return tuple(Fork(generation, int(fork["step"])) for generation, fork in forks)


def _clear(path: Path, overwrite: bool) -> None:
    for name in UNFINISHED:  # of a process that died before it was a run's
        (path / name).unlink(missing_ok=True)
    found = _contents(path)
    foreign = [name for name in found if name not in OURS]
    if foreign:
        raise RunDirTaken(
            path, f"files that no run wrote ({', '.join(sorted(foreign)[:5])})", "choose an empty directory"
        )
    if not found:
        return
    if not overwrite:
        raise RunDirTaken(path, "a run", "choose another run.dir, or give --overwrite to remove that run")
    for name in found:
        entry = path / name
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def died_unborn(path: Path) -> bool:
    """Whether a process died in ``path`` before it was a run's: nothing is there but what it had begun to write."""
    return path.is_dir() and set(_contents(path)) <= set(UNFINISHED)


def _contents(path: Path) -> list[str]:
    """Names of all but locks."""
    return [entry.name for entry in path.iterdir() if not entry.name.endswith("lock")]


def is_live(path: Path) -> bool:
    """Whether a run is going on in ``path``."""
    return is_locked(str(path))


def describe(path: Path) -> dict[str, Any]:
    """Read ``run.json``. Raises NoRun."""
    try:
        described: dict[str, Any] = json.loads((path / "run.json").read_text())
    except FileNotFoundError:
        raise NoRun(path, "run.json, so no run") from None
    if described.get("format") != FORMAT_VERSION:
        raise NoRun(path, f"run of format {FORMAT_VERSION} (found {described.get('format')})")
    return described
