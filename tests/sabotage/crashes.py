"""Small ways to make a run lose at a crash what it told is there: its crash images (``tests.e2e.crash_images``) have to show each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from pipeline.rowlog.checkpoint.catalog import remove_leftovers, write_catalog
from pipeline.session.checkpoints import Checkpoints
from pipeline.session.retention import Retention
from pipeline.wire.segments import SegmentDirectory
from tests.files.journal import JournalFile, JournalFiles


@contextmanager
def _no_sync_of(part: str) -> Iterator[None]:
    sync = JournalFile.sync

    def forgetful(self: JournalFile) -> None:
        if part not in self.name:
            sync(self)

    with patch.object(JournalFile, "sync", forgetful):
        yield


def forget_to_sync_segments_of_rows() -> AbstractContextManager[None]:
    return _no_sync_of("/ssd/")


def forget_to_sync_a_manifest() -> AbstractContextManager[None]:
    return _no_sync_of("/manifest.json")


def forget_to_sync_the_catalog() -> AbstractContextManager[None]:
    return _no_sync_of("/.new-checkpoints.json")


def forget_to_sync_the_stream() -> AbstractContextManager[None]:
    return _no_sync_of("/stream/")


@contextmanager
def forget_to_sync_directories_of_checkpoints() -> Iterator[None]:
    sync_dir = JournalFiles.sync_dir

    def forgetful(self: JournalFiles, path: str) -> None:
        if "/checkpoints" not in path:
            sync_dir(self, path)

    with patch.object(JournalFiles, "sync_dir", forgetful):
        yield


@contextmanager
def remove_an_old_checkpoint_before_the_catalog_forgets_it() -> Iterator[None]:
    def late(files: Any, directory: str, names: Any) -> None:
        remove_leftovers(files, directory, names)
        write_catalog(files, directory, names)

    with patch("pipeline.rowlog.checkpoint.writer.write_catalog", late):
        yield


@contextmanager
def let_go_of_an_old_checkpoints_segments_before_the_new_one_is_there() -> Iterator[None]:
    write = Checkpoints.write

    def early(self: Checkpoints, marker: Any) -> Any:
        for held in list(self._retention._held.values()):
            held.release()
        self._retention._held.clear()
        return write(self, marker)

    with patch.object(Checkpoints, "write", early), patch.object(Retention, "opened", lambda *_: None):
        yield


@contextmanager
def remove_old_parts_of_a_stream_in_no_order() -> Iterator[None]:
    def at_once(self: SegmentDirectory, number: int) -> int:
        old = [one for one in self.numbers() if one < number]
        for one in old:
            self.files.remove(self.segment_path(one))
        self.files.sync_dir(self.path)
        return len(old)

    with patch.object(SegmentDirectory, "remove_before", at_once):
        yield


SABOTAGES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        forget_to_sync_segments_of_rows,
        forget_to_sync_a_manifest,
        forget_to_sync_the_catalog,
        forget_to_sync_the_stream,
        forget_to_sync_directories_of_checkpoints,
        remove_an_old_checkpoint_before_the_catalog_forgets_it,
        let_go_of_an_old_checkpoints_segments_before_the_new_one_is_there,
        remove_old_parts_of_a_stream_in_no_order,
    )
}
