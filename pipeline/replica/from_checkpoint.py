"""Starting from a checkpoint of the trainer: its rows, and the place in the stream behind which they go on.

Rules.

1. The place is that of the newest cut of at most the checkpoint's step, whichever generation wrote the checkpoint: every later cut has
   what changed since. A stream that is whole from its first cut on has one more such place, before that.
2. Rows that changed between that cut and the checkpoint come again with the next cut. So they must not be missing from it: a fork (a rewind
   cut of a generation after the checkpoint's) takes back only what was published. Cuts behind such a fork do not count, and where rows of
   the checkpoint were never published before it, there is no place.
3. A checkpoint's rows are exact, those of a stream went through its codec: so they do here.

The replica then is the trainer at the checkpoint's step, under the name of the place's cut.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import Files, RealFiles
from pipeline.replica.carried import Carried
from pipeline.replica.cuts import Applied, Cut, ShardPlace, StagedRows
from pipeline.replica.errors import CheckpointOfOther, NoCutForCheckpoint
from pipeline.replica.retained import SeenStream
from pipeline.rowlog import CheckpointReader
from pipeline.rowlog.checkpoint.catalog import CATALOG_NAME
from pipeline.rowlog.checkpoint.manifest import MANIFEST_NAME
from pipeline.rowlog.errors import NoCheckpoint
from pipeline.rows.codec import find_codec
from pipeline.wire.frames import START, CommitFrame, CutPosition, HeaderFrame

DENSE, CHECKPOINTS = "dense.npz", "checkpoints"


def find_checkpoint(directory: str, files: Files | None = None) -> CheckpointReader:
    """``directory``: a checkpoint, a directory of checkpoints (the newest counts), or a run directory. Raises NoCheckpoint."""
    files = files or RealFiles()
    if files.exists(os.path.join(directory, MANIFEST_NAME)):
        return CheckpointReader(files, directory)
    for place in (directory, os.path.join(directory, CHECKPOINTS)):
        if files.exists(os.path.join(place, CATALOG_NAME)):
            return CheckpointReader.newest(files, place)
    raise NoCheckpoint(directory)


@dataclass(frozen=True, slots=True)
class _Start:
    """A place for a checkpoint."""

    position: CutPosition
    clock_ns: int
    carries_dense: bool
    ended: bool = False
    """The run had ended there."""


def cut_of_checkpoint(reader: CheckpointReader, seen: SeenStream, wanted: Callable[[str], bool]) -> Cut:
    """What is to be applied, as a snapshot cut. Raises CheckpointOfOther, NoCutForCheckpoint; reading rows, what the reader raises."""
    manifest, headers = reader.manifest, [_last(header, reader) for header in seen.headers]
    run_id = manifest.extra.get("run_id")
    if run_id != headers[0].run_id:
        raise CheckpointOfOther(reader.path, f"it is of run {run_id}, the stream of run {headers[0].run_id}")
    start = _find_start(reader, seen)
    in_force, places = headers, tuple[ShardPlace, ...]()
    if start.position != START:
        found = [shard.cuts.get((False, start.position)) for shard in seen.shards]
        in_force = [header if one is None else one.behind.header for one, header in zip(found, headers, strict=True)]
        places = tuple(
            ShardPlace(header.epoch, None, shard.header_bytes) if one is None else one.behind.kept
            for one, header, shard in zip(found, headers, seen.shards, strict=True)
        )
    header = in_force[0]
    names = [table.spec.name for table in header.tables if wanted(table.spec.name)]
    for name in names:
        _check_table(reader, header, name)
    applied = Applied(start.position, manifest.step, start.clock_ns, start.ended, places)
    # A cut has the dense weights when they changed; where no cut has them, the stream does not carry them.
    dense = _dense(reader) if start.carries_dense else None
    return Cut(applied, True, partial(_parts, reader, header, names), dense, None)


def _last(header: HeaderFrame | None, reader: CheckpointReader) -> HeaderFrame:
    if header is None:
        raise NoCutForCheckpoint(
            reader.path, reader.manifest.step, "the stream holds no header frame yet; start when its run has begun"
        )
    return header


def _find_start(reader: CheckpointReader, seen: SeenStream) -> _Start:
    """Rules 1 and 2."""
    step, generation = reader.manifest.step, reader.manifest.generation
    ordinary = seen.cuts(snapshots=False)
    commits = dict(sorted({**seen.cuts(snapshots=True), **ordinary}.items()))
    before = list(_before_fork(commits.values(), generation))
    fork = next((commit for commit in commits.values() if commit.rewind and commit.generation > generation), None)
    carries_dense = any(commit.dense_digest is not None for commit in commits.values())
    found = [commit for commit in before if commit.step <= step]
    if found:
        last = found[-1]
        if fork is not None and last is before[-1] and last.step < step:
            why = f"the stream went back to step {fork.step} with a fork, and what changed behind step {last.step} was not published"
            raise NoCutForCheckpoint(reader.path, step, f"{why}; take a checkpoint of the fork, or start without one")
        return _Start(last.position, last.clock_ns, carries_dense, last.end and last.step == step)
    if before and before[0].previous == START and not before[0].snapshot:
        return _Start(START, before[0].clock_ns, carries_dense)
    oldest = min((commit.step for commit in before), default=None)
    left = "no whole cut" if oldest is None else f"no cut before step {oldest}"
    raise NoCutForCheckpoint(
        reader.path,
        step,
        f"the stream holds {left} any more; take a newer checkpoint, or start without one, from the newest snapshot cut",
    )


def _before_fork(commits: Iterable[CommitFrame], generation: int) -> Iterator[CommitFrame]:
    for commit in commits:
        if commit.rewind and commit.generation > generation:
            return
        yield commit


def _check_table(reader: CheckpointReader, header: HeaderFrame, name: str) -> None:
    if name not in reader.manifest.tables:
        raise CheckpointOfOther(reader.path, f"it has no table {name!r}, which the stream carries")
    kept, streamed = reader.entry(name).spec, header.table(name).spec
    if kept != streamed:
        raise CheckpointOfOther(reader.path, f"its table {name!r} is {kept}, the stream's {streamed}")


def _parts(reader: CheckpointReader, header: HeaderFrame, names: Sequence[str]) -> Iterator[StagedRows]:
    """Rule 3, a few MiB of rows at a time."""
    for name in names:
        table = header.table(name)
        layout, codec, carried = table.spec.layout, find_codec(table.codec), Carried(table.spec, table.carries)
        for chunk in reader.rows(name):
            weights_nd = layout.singles(chunk.rows_nb, layout.columns[0].name)
            yield StagedRows(
                name,
                chunk.ids_n,
                codec.encode(np.ascontiguousarray(weights_nd)),
                chunk.versions_n,
                chunk.ids_n[:0],
                codec,
                table.spec.dim,
                carried,
                carried.of_rows(table.spec, chunk.rows_nb),
            )


def _dense(reader: CheckpointReader) -> Mapping[str, npt.NDArray[Any]]:
    with np.load(io.BytesIO(reader.blob(DENSE)), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    for array in found.values():
        array.flags.writeable = False
    return found
