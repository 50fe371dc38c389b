"""Passes calls to the files of the system and writes them down, so that crashes at any of them can be made up afterwards.

files = JournalFiles(root)              what is done below ``root`` through it is written down
files.note("checkpoint", 12)            so is what the caller was told by then
for image in crash_images(files.entries): ...
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.files.base import Buffer
from pipeline.files.real import RealFile, RealFiles
from tests.files.nodes import OUTCOMES, DirNode, FileNode, Outcome
from tests.files.recording import RecordingFile, RecordingFiles

CRASH_BEHIND = ("write", "sync", "rename", "sync_dir", "truncate", "remove", "link", "create")
"""Calls after which the machine may stop."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One call that went well, or a note. ``file`` tells open files apart; -1 where there is none."""

    kind: str
    path: str = ""
    other: str = ""
    data: bytes = b""
    number: int = 0
    file: int = -1


class JournalFile(RealFile):
    """See ``pipeline.files.WritableFile``."""

    def __init__(self, files: JournalFiles, path: str, flags: int, number: int) -> None:
        super().__init__(path, flags)
        self._files, self._number = files, number

    def write(self, data: Buffer, *more: Buffer) -> int:
        taken = b"".join((data, *more))
        with self._files.lock:
            start = super().write(data, *more)
            self._files.entries.append(Entry("write", data=taken, file=self._number))
        return start

    def sync(self) -> None:
        with self._files.lock:
            super().sync()
            self._files.entries.append(Entry("sync", file=self._number))


class JournalFiles(RealFiles):
    """The lock makes the order of the entries that of the calls. Reads are passed on alone."""

    def __init__(self, root: Path) -> None:
        self.entries: list[Entry] = []
        self.lock = threading.RLock()
        self._root, self._open = str(root), 0

    def note(self, kind: str, number: int) -> None:
        with self.lock:
            self.entries.append(Entry(kind, number=number))

    def _take(self, kind: str, call: Callable[[], None], path: str, other: str = "", number: int = 0) -> None:
        with self.lock:
            call()
            self.entries.append(Entry(kind, self._below(path), other and self._below(other), number=number))

    def _below(self, path: str) -> str:
        found = os.path.relpath(os.path.abspath(path), self._root)
        assert not found.startswith(".."), f"{path} does not lie below {self._root}"
        return found

    def _file(self, kind: str, path: str, flags: int) -> JournalFile:
        with self.lock:
            self._open += 1
            file = JournalFile(self, path, flags, self._open)
            self.entries.append(Entry(kind, self._below(path), file=self._open))
            return file

    def create(self, path: str) -> JournalFile:
        return self._file("create", path, os.O_CREAT | os.O_EXCL)

    def open_append(self, path: str) -> JournalFile:
        return self._file("open_append", path, 0)

    def make_dirs(self, path: str) -> None:
        self._take("make_dirs", lambda: RealFiles().make_dirs(path), path)

    def rename(self, old: str, new: str) -> None:
        self._take("rename", lambda: RealFiles().rename(old, new), old, new)

    def link(self, old: str, new: str) -> None:
        self._take("link", lambda: RealFiles().link(old, new), old, new)

    def remove(self, path: str) -> None:
        self._take("remove", lambda: RealFiles().remove(path), path)

    def remove_dir(self, path: str) -> None:
        self._take("remove_dir", lambda: RealFiles().remove_dir(path), path)

    def sync_dir(self, path: str) -> None:
        self._take("sync_dir", lambda: RealFiles().sync_dir(path), path)

    def truncate(self, path: str, size: int) -> None:
        self._take("truncate", lambda: RealFiles().truncate(path, size), path, number=size)


@dataclass(frozen=True, slots=True)
class Image:
    """What a disk holds after a crash behind the call ``at``; ``noted`` has the last note of each kind before it."""

    at: int
    call: Entry
    outcome: Outcome
    noted: dict[str, int]
    files: Mapping[str, bytes | None]
    """By path, in an order in which they can be made; None: a directory. Images share what is the same in them."""
    has_holes: bool
    """Whether what was not synced may have come in any order, in this crash or one before."""

    def __str__(self) -> str:
        where = self.call.path or f"file {self.call.file}"
        return f"crash behind call {self.at} ({self.call.kind} of {where}), {self.outcome}, told {self.noted}"

    def part(self, chosen: Callable[[str], bool]) -> tuple[object, ...]:
        """Tells this part of the image, of the files whose path is ``chosen``, from the same part of others of one call."""
        return tuple((name, id(content)) for name, content in self.files.items() if chosen(name))

    def write_to(self, directory: Path) -> None:
        """``directory`` is made, or empty."""
        directory.mkdir(exist_ok=True)
        for name, content in self.files.items():
            if content is None:
                (directory / name).mkdir()
            else:
                (directory / name).write_bytes(content)

    def root(self) -> DirNode:
        """The same as a new tree, all of it durable."""
        root = DirNode()
        for name, content in self.files.items():
            parent, node = root, DirNode() if content is None else FileNode(content)
            *above, last = name.split("/")
            for part in above:
                below = parent.visible[part]
                assert isinstance(below, DirNode)
                parent = below
            parent.visible[last] = parent.durable[last] = node
        return root


def crash_images(entries: Sequence[Entry], seed: int = 0, before: Image | None = None) -> Iterator[Image]:
    """Each distinct image, with what was told by then, once, in order: behind each call, each outcome for what was not synced.

    ``before``: what the disk held, and what was told, when the first entry was made.
    """
    disk = RecordingFiles(None if before is None else before.root())
    noted, seen, known = {} if before is None else before.noted, set[bytes](), dict[bytes, bytes]()
    open_files: dict[int, RecordingFile] = {}
    for at, entry in enumerate(entries):
        if not _replay(disk, open_files, entry):
            noted = {**noted, entry.kind: entry.number}
        if entry.kind not in CRASH_BEHIND:
            continue
        named = entry if entry.path or entry.file < 0 else replace(entry, path=open_files[entry.file].name, data=b"")
        for outcome in OUTCOMES:
            root = disk.root_after_crash(outcome, random.Random(f"{seed} {at} {outcome}"))
            files = dict(_files(root, "", known))
            # What was told is a part of it: the same disk may be right before a note, and have lost something after it.
            key = repr([*noted.items(), *((name, id(content)) for name, content in files.items())]).encode()
            digest = hashlib.blake2b(key).digest()
            if digest not in seen:
                seen.add(digest)
                has_holes = outcome == "reorder" or (before is not None and before.has_holes)
                yield Image(at, named, outcome, noted, files, has_holes)


def _files(node: DirNode, above: str, known: dict[bytes, bytes]) -> Iterator[tuple[str, bytes | None]]:
    """Paths and contents; equal contents are one object, which ``known`` keeps."""
    for name, below in sorted(node.durable.items()):
        if isinstance(below, DirNode):
            yield above + name, None
            yield from _files(below, f"{above}{name}/", known)
        else:
            content = bytes(below.durable)
            yield above + name, known.setdefault(hashlib.blake2b(content).digest(), content)


def _replay(disk: RecordingFiles, open_files: dict[int, RecordingFile], entry: Entry) -> bool:
    """Do the call again; False for a note."""
    match entry.kind:
        case "create" | "open_append":
            open_files[entry.file] = getattr(disk, entry.kind)(entry.path)
        case "write":
            open_files[entry.file].write(entry.data)
        case "sync":
            open_files[entry.file].sync()
        case "rename" | "link":
            getattr(disk, entry.kind)(entry.path, entry.other)
        case "truncate":
            disk.truncate(entry.path, entry.number)
        case "make_dirs" | "remove" | "remove_dir" | "sync_dir":
            getattr(disk, entry.kind)(entry.path)
        case _:
            return False
    return True
