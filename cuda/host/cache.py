"""Where compiled kernels are kept on disk, and when a kept one is stale.

Numba's own rule is that a kernel is fresh while the file it stands in is unchanged; ours inline helpers from files beside them, so
here the whole folder counts. The first of these places that can be written is taken: ``NUMBA_CACHE_DIR``, ``__pycache__`` beside the
file, the user's cache directory, a directory of this user's own under the system's temporary directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from cuda.host.numba_types import caching, runtime


@cache
def folder_stamp(folder: Path) -> str:
    """A hash of every Python file in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class _FolderStamp:
    _py_file: str

    def get_source_stamp(self) -> str:
        return folder_stamp(Path(self._py_file).parent)


class _Provided(_FolderStamp, caching.UserProvidedCacheLocator):  # type: ignore[misc]
    pass


class _InTree(_FolderStamp, caching.InTreeCacheLocator):  # type: ignore[misc]
    pass


class _UserWide(_FolderStamp, caching.UserWideCacheLocator):  # type: ignore[misc]
    pass


class _Temporary(_FolderStamp, caching.InTreeCacheLocator):  # type: ignore[misc]
    def __init__(self, py_func: Any, py_file: str) -> None:
        super().__init__(py_func, py_file)
        self._cache_path = str(_own_directory() / self.get_suitable_cache_subpath(py_file))


def _own_directory() -> Path:
    """A directory only this user can write: what lies in a cache gets executed."""
    path = Path(tempfile.gettempdir()) / f"rowstream-kernels-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        return Path(tempfile.mkdtemp(prefix="rowstream-kernels-"))
    return path


class FolderCacheLocator:
    """What Numba asks for a place (its setting ``CACHE_LOCATOR_CLASSES`` names this class)."""

    @staticmethod
    def from_function(py_func: Any, py_file: str) -> Any:
        for place in (_Provided, _InTree, _UserWide, _Temporary):
            found = place.from_function(py_func, py_file)
            if found is not None:
                return found
        return None


@contextlib.contextmanager
def our_cache() -> Iterator[None]:
    """Functions decorated inside are cached by the rules above."""
    before = runtime.config.CACHE_LOCATOR_CLASSES
    runtime.config.CACHE_LOCATOR_CLASSES = f"{__name__}.{FolderCacheLocator.__name__}"
    try:
        yield
    finally:
        runtime.config.CACHE_LOCATOR_CLASSES = before
