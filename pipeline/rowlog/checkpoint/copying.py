"""Copies of checkpoints elsewhere: a directory with the same checkpoints, segments linked or copied, whole on its own.

    DIR/checkpoints.json, DIR/step-.../     as ``writer`` has them
    DIR/rows/TABLE-0000000001.seg           every segment that they name, wherever it lay

A segment never changes, and its name is used once in a run; so one that is there already, whole, is not copied again.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import Final

from pipeline.files import Files, discard, finish, temporary_name
from pipeline.files.atomic import create_anew
from pipeline.rowlog.checkpoint.catalog import read_catalog
from pipeline.rowlog.checkpoint.reader import CheckpointReader
from pipeline.rowlog.checkpoint.writer import CheckpointWriter
from pipeline.rowlog.log.segment_format import SealedSegment

PIECE_BYTES: Final = 8 << 20
ROWS: Final = "rows"


def copy_checkpoint(files: Files, path: str, directory: str, *, keep: int) -> str:
    """Copy the checkpoint in directory ``path`` into ``directory``, as its newest; durable when it returns its directory.

    Raises OSError, with the path, and the checkpoints that were copied before are whole; CheckpointCorrupt where it is not.
    """
    reader, rows = CheckpointReader(files, path), os.path.join(directory, ROWS)
    files.make_dirs(rows)
    writer = CheckpointWriter(files, directory, keep=keep)
    manifest = reader.manifest
    writer.begin(manifest.step, manifest.generation, manifest.extra)
    try:
        for spec in reader.tables:
            saved = reader.saved.tables[spec.name]
            copies = tuple(_copy(files, segment, rows) for segment in saved.segments)
            writer.add_table(spec, replace(saved, segments=copies))
        files.sync_dir(rows)
        for name in manifest.blobs:
            writer.add_blob(name, reader.blob(name))
        copied = writer.commit()
    except BaseException:
        writer.abort()
        raise
    _remove_unnamed(files, directory)
    return copied


def _copy(files: Files, segment: SealedSegment, rows: str) -> SealedSegment:
    target = os.path.join(rows, os.path.basename(segment.path))
    if not files.exists(target) or files.size(target) != segment.size:
        with contextlib.suppress(FileNotFoundError):
            files.remove(target)
        try:
            files.link(segment.path, target)
        except OSError:  # another disk, or a file system without links
            _copy_bytes(files, segment, target)
    return replace(segment, path=target)


def _copy_bytes(files: Files, segment: SealedSegment, target: str) -> None:
    file = create_anew(files, temporary_name(target))
    try:
        for offset in range(0, segment.size, PIECE_BYTES):
            file.write(files.read(segment.path, offset, min(PIECE_BYTES, segment.size - offset)))
        finish(files, file, target)
    except BaseException:
        discard(files, file)
        raise


def _remove_unnamed(files: Files, directory: str) -> None:
    names = read_catalog(files, directory)
    readers = [CheckpointReader(files, os.path.join(directory, name)) for name in names]
    named = {os.path.basename(segment.path) for reader in readers for segment in reader.saved.all_segments()}
    for name in files.list(os.path.join(directory, ROWS)):
        if name not in named and name.endswith(".seg"):  # under a temporary name too
            files.remove(os.path.join(directory, ROWS, name))
