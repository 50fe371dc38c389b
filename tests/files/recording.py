"""A double of ``pipeline.files.Files``, in memory: for crashes at any call, and for disks that fail.

    files = RecordingFiles()
    files.crash_at = 7                        the seventh call from now on raises Crashed, and so does every later one
    files.fail("write", at=2, code=ENOSPC)    the second write from now on fails
    after = files.after_crash("tear", rng)    what another process finds: a new RecordingFiles

What was synced survives a crash; of the rest, the outcome decides (``nodes.Outcome``), file by file and name by name.
Names in one directory become durable in the order in which they were changed, but for the outcome "reorder".
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.files import BrokenFile
from pipeline.files.base import Buffer
from pipeline.files.errors import naming
from tests.files.nodes import Change, DirNode, Entries, FileNode, Outcome


class Crashed(BaseException):
    """The process died in the middle of a call."""


@dataclass
class _Fault:
    kind: str
    at: int
    times: int
    code: int
    left_bytes: int


class RecordingFiles:
    """See the module docstring. Safe to share by threads."""

    def __init__(self, root: DirNode | None = None) -> None:
        self.calls: list[tuple[str, str]] = []
        """(kind, path) of every call, in order."""
        self.crash_at: int | None = None
        """How many calls from now on the process dies in; None: never."""
        self.lock = threading.RLock()
        self._root = root or DirNode()
        self._faults: list[_Fault] = []

    @property
    def counts(self) -> Counter[str]:
        """How often each kind of call was made."""
        return Counter(kind for kind, _ in self.calls)

    def fail(self, kind: str, *, at: int = 1, times: int = 1, code: int = errno.EIO, left_bytes: int = 0) -> None:
        """Let the ``at``-th call of a kind from now on, and those up to ``times`` of them, fail with ``code``.

        ``left_bytes``: of a failed write, so many bytes stay in the file, as when cutting them off fails too.
        """
        self._faults.append(_Fault(kind, at, times, code, left_bytes))

    def heal(self) -> None:
        """Nothing fails any more, faults to come included."""
        self._faults = []

    def after_crash(self, outcome: Outcome = "drop", rng: random.Random | None = None) -> RecordingFiles:
        """The disk as another process finds it."""
        return RecordingFiles(self.root_after_crash(outcome, rng or random.Random(0)))

    def root_after_crash(self, outcome: Outcome, rng: random.Random) -> DirNode:
        """The same as a tree."""
        with self.lock:
            return self._root.after_crash(outcome, rng)

    def enter(self, kind: str, path: str) -> _Fault | None:
        """Count a call; raise Crashed where it is due; return the fault that it meets."""
        self.calls.append((kind, path))
        if self.crash_at is not None:
            self.crash_at -= 1
            if self.crash_at <= 0:
                raise Crashed(f"{kind} {path}")
        met = None
        for fault in self._faults:
            if fault.kind == kind:
                fault.at -= 1
                if -fault.times < fault.at <= 0:
                    met = fault
        return met

    def _check(self, kind: str, path: str) -> None:
        fault = self.enter(kind, path)
        if fault is not None:
            raise_fault(fault, path)

    def create(self, path: str) -> RecordingFile:
        with self.lock:
            self._check("create", path)
            parent, name = self._parent(path)
            if name in parent.visible:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            node = FileNode()
            parent.change(_put(name, node))
            return RecordingFile(self, path, node)

    def open_append(self, path: str) -> RecordingFile:
        with self.lock:
            self._check("open_append", path)
            return RecordingFile(self, path, self._file(path))

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        with self.lock:
            self._check("read", path)
            data = self._file(path).visible
            return bytes(data[offset:] if size is None else data[offset : offset + size])

    def size(self, path: str) -> int:
        with self.lock:
            self._check("size", path)
            return len(self._file(path).visible)

    def exists(self, path: str) -> bool:
        with self.lock:
            return self._find(path) is not None

    def list(self, directory: str) -> list[str]:
        with self.lock:
            self._check("list", directory)
            return sorted(self._dir(directory).visible)

    def make_dirs(self, path: str) -> None:
        with self.lock:
            self._check("make_dirs", path)
            node = self._root
            for name in _parts(path):
                if name not in node.visible:
                    node.change(_put(name, DirNode()))
                    node.sync()
                below = node.visible[name]
                if isinstance(below, FileNode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
                node = below

    def rename(self, old: str, new: str) -> None:
        with self.lock:
            self._check("rename", old)
            (parent, old_name), (target, new_name) = self._parent(old), self._parent(new)
            assert parent is target, f"{old} and {new}: a rename between directories is not atomic everywhere"
            node, replaced = self._existing(old), parent.visible.get(new_name)
            if isinstance(replaced, DirNode) and (replaced.visible or isinstance(node, FileNode)):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), old)
            parent.change(lambda entries: entries.update({new_name: entries.pop(old_name, node)}))

    def link(self, old: str, new: str) -> None:
        with self.lock:
            self._check("link", new)
            parent, name = self._parent(new)
            if name in parent.visible:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
            parent.change(_put(name, self._file(old)))

    def remove(self, path: str) -> None:
        with self.lock:
            self._check("remove", path)
            self._file(path)
            parent, name = self._parent(path)
            parent.change(lambda entries: entries.pop(name, None))

    def remove_dir(self, path: str) -> None:
        with self.lock:
            self._check("remove_dir", path)
            if self._dir(path).visible:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            parent, name = self._parent(path)
            parent.change(lambda entries: entries.pop(name, None))

    def sync_dir(self, path: str) -> None:
        with self.lock:
            self._check("sync_dir", path)
            self._dir(path).sync()

    def truncate(self, path: str, size: int) -> None:
        with self.lock:
            self._check("truncate", path)
            self._file(path).change(Change(size, None))

    def flip(self, path: str, offset: int, mask: int = 1) -> None:
        """Damage one durable byte."""
        node = self._file(path)
        for content in (node.visible, node.durable):
            if offset < len(content):
                content[offset] ^= mask

    def _find(self, path: str) -> FileNode | DirNode | None:
        node: FileNode | DirNode | None = self._root
        for name in _parts(path):
            if not isinstance(node, DirNode):
                return None
            node = node.visible.get(name)
        return node

    def _existing(self, path: str) -> FileNode | DirNode:
        node = self._find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return node

    def _file(self, path: str) -> FileNode:
        node = self._existing(path)
        if isinstance(node, DirNode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return node

    def _dir(self, path: str) -> DirNode:
        node = self._existing(path)
        if isinstance(node, FileNode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return node

    def _parent(self, path: str) -> tuple[DirNode, str]:
        directory, name = os.path.split(path)
        parent = self._find(directory)
        if not isinstance(parent, DirNode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return parent, name


class RecordingFile:
    """See ``pipeline.files.WritableFile``."""

    def __init__(self, files: RecordingFiles, name: str, node: FileNode) -> None:
        self.name = name
        self.size = len(node.visible)
        self._files, self._node = files, node
        self._closed = self._broken = False

    def write(self, data: Buffer, *more: Buffer) -> int:
        taken = b"".join((data, *more))
        with self._files.lock:
            self._check_usable()
            fault = self._files.enter("write", self.name)
            if fault is not None:
                if fault.left_bytes:
                    self._node.change(Change(self.size, taken[: fault.left_bytes]))
                raise_fault(fault, self.name, len(taken))
            start = self.size
            self._node.change(Change(start, taken))
            self.size = start + len(taken)
            return start

    def sync(self) -> None:
        with self._files.lock:
            self._check_usable()
            fault = self._files.enter("sync", self.name)
            if fault is not None:
                self._broken = True
                self._node.lose_pending()
                raise_fault(fault, self.name)
            self._node.sync()

    def close(self) -> None:
        self._closed = True

    def _check_usable(self) -> None:
        if self._closed:
            raise ValueError(f"{self.name}: the file is closed")
        if self._broken:
            raise BrokenFile(self.name)


def raise_fault(fault: _Fault, path: str, needed: int = 0) -> None:
    """Raise a fault as the real files do: mapped, with its path."""
    with naming(path, needed):
        raise OSError(fault.code, os.strerror(fault.code))


def _put(name: str, node: FileNode | DirNode) -> Callable[[Entries], object]:
    return lambda entries: entries.update({name: node})


def _parts(path: str) -> list[str]:
    return [name for name in os.path.normpath(path).split(os.sep) if name not in ("", ".")]
