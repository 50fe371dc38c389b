"""Small ways to break the stream and its file transport. Each is caught by the checks named in ``test_stream.py``
beside this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from pipeline.stream import changed, merging, published, whole_cut
from pipeline.stream.changed import ChangedSet
from pipeline.stream.cut import CutBuilder
from pipeline.stream.cut_writer import CutWriter
from pipeline.stream.outlet import Outlet
from pipeline.stream.packing import Packer
from pipeline.stream.streamer import RowStreamer
from pipeline.wire import CommitFrame, HeaderFrame, RowsFrame, encoding, rows_content
from pipeline.wire import recovery as recovery_module
from pipeline.wire.digest import extra_digest
from pipeline.wire.reading import FrameReader
from pipeline.wire.row_runs import NO_IDS
from pipeline.wire.segment_writer import SegmentWriter
from pipeline.wire.segments import SegmentDirectory
from tests.sabotage.caught import Sabotage


def _skip_the_last_batch() -> AbstractContextManager[Any]:
    return patch.object(RowStreamer, "drain", lambda _self: None)


def _forget_what_an_abandoned_cut_held() -> AbstractContextManager[Any]:
    return patch.object(ChangedSet, "put_back", lambda _self, _changed: None)


@contextmanager
def _commit_before_the_last_frame() -> Iterator[None]:
    """Each frame of rows is held back until the next one comes, the last one until after its commit."""
    send = Outlet.send
    late: list[Any] = []

    def send_late(self: Outlet, frames: Any, *, sync: bool) -> int:
        late.extend(frame for frame in frames if isinstance(frame, RowsFrame))
        others = [frame for frame in frames if not isinstance(frame, RowsFrame)]
        held = late[-1:]
        num_bytes = send(self, [*late[:-1], *others], sync=sync)
        late[:] = held
        if any(isinstance(frame, CommitFrame) for frame in others):
            num_bytes += send(self, held, sync=False)
            late.clear()
        return num_bytes

    with patch.object(Outlet, "send", send_late):
        yield


@contextmanager
def _send_rows_of_a_newer_step() -> Iterator[None]:
    """Rows are read as they stand now, not as they were frozen."""

    class Live:
        def __init__(self, source: Any, frozen: Any) -> None:
            self._source, self.step, self.ids, self.close = source, frozen.step, frozen.ids, frozen.close
            self._frozen = frozen

        def encode(self, *_: Any) -> None:
            """Never: rows are read."""

        def read(self, ids: Any) -> Any:
            self._frozen.read(ids)
            live = self._source.at_fence(lambda _step: self._source.freeze("all", changed_since=0))
            try:
                return live.read(ids)
            finally:
                live.close()

    publish = CutWriter.write

    def publish_live(self: CutWriter, builder: Any, rows: Any, *rest: Any) -> Any:
        return publish(self, builder, Live(rows.source, rows), *rest)

    with patch.object(CutWriter, "write", publish_live):
        yield


def _use_the_number_of_an_abandoned_cut_again() -> AbstractContextManager[Any]:
    publish = RowStreamer._publish_changed

    def publish_reusing(self: RowStreamer, frozen: Any) -> Any:
        commit = publish(self, frozen)
        if commit is None:
            self._last_number -= 1
        return commit

    return patch.object(RowStreamer, "_publish_changed", publish_reusing)


def _leave_out_deleted_rows() -> AbstractContextManager[Any]:
    rows_frame = CutBuilder._rows_frame

    def without_tombstones(self: CutBuilder, *args: Any) -> Any:
        frame = rows_frame(self, *args)
        runs = frame.rows
        self.num_tombstones -= len(runs.tombstones_m)
        self.digest = (self.digest - extra_digest(runs)) % (1 << 64)
        heads = tuple(head._replace(num_dead=0) for head in runs.heads)
        return replace(frame, rows=replace(runs, heads=heads, tombstones_m=NO_IDS))

    return patch.object(CutBuilder, "_rows_frame", without_tombstones)


def _drop_an_id_when_coalescing() -> AbstractContextManager[Any]:
    distinct = merging.distinct_ids
    shorter = lambda pieces: {table: ids_n[:-1] for table, ids_n in distinct(pieces).items()}  # noqa: E731
    return patch.object(changed, "distinct_ids", shorter)


def _forget_a_row_in_snapshot_cuts() -> AbstractContextManager[Any]:
    publish = CutWriter.write

    def publish_short(self: CutWriter, builder: Any, rows: Any, ids: Any, *rest: Any) -> Any:
        if builder.snapshot:
            ids = {name: ids_n[1:] for name, ids_n in ids.items()}
        return publish(self, builder, rows, ids, *rest)

    return patch.object(CutWriter, "write", publish_short)


def _trim_past_the_snapshot_cut() -> AbstractContextManager[Any]:
    snapshot_cut = RowStreamer.snapshot_cut

    def trim_all(self: RowStreamer) -> Any:
        commit = snapshot_cut(self)
        if commit is not None:
            self._outlet.each[0]._transport.retain_from(self._outlet.each[0]._transport.end)
        return commit

    return patch.object(RowStreamer, "snapshot_cut", trim_all)


def _trim_behind_the_snapshot_cut_only() -> AbstractContextManager[Any]:
    """Keep the snapshot cut's frames, but not the cuts that were committed while it was read."""
    publish = RowStreamer._publish_everything

    def publish_and_trim(self: RowStreamer, *args: Any) -> Any:
        start = self._outlet.each[0]._transport.end
        commit = publish(self, *args)
        if commit is not None:
            frames = self._outlet.each[0]._transport.frames  # type: ignore[attr-defined]
            reader = FrameReader()
            read = [reader.read(data) for data in frames]
            kept = [k for k in range(start.offset, len(frames)) if isinstance(read[k], HeaderFrame) or read[k].snapshot]  # type: ignore[union-attr]
            frames[start.offset :] = [frames[k] for k in kept]
        return commit

    return patch.object(RowStreamer, "_publish_everything", publish_and_trim)


def _forget_the_steps_that_ended() -> AbstractContextManager[Any]:
    commit = CutBuilder.commit
    return patch.object(CutBuilder, "commit", lambda self, ended_k2: commit(self, ended_k2[-1:]))


def _commit_without_sync() -> AbstractContextManager[Any]:
    send = Outlet.send
    return patch.object(Outlet, "send", lambda self, frame, **_: send(self, frame, sync=False))


def _freeze_outside_the_fence() -> AbstractContextManager[Any]:
    """Take what changed at the fence, let a step pass, then freeze."""
    take = RowStreamer._freeze

    def take_late(self: RowStreamer, step: int, with_everything: bool = False) -> Any:
        frozen = take(self, step, with_everything)
        self._source.on_read()  # type: ignore[attr-defined]
        rows = self._source.freeze(frozen.changed.by_table, changed_since=self.committed_step)
        frozen.rows.close()
        rows.step = frozen.step  # type: ignore[misc]
        frozen.rows = rows
        return frozen

    return patch.object(RowStreamer, "_freeze", take_late)


def _forget_sync() -> AbstractContextManager[Any]:
    """The transport says that frames are durable without asking the disk."""

    def pretend(self: SegmentWriter) -> None:
        self._durable = 0 if self._file is None else self._file.size

    return patch.object(SegmentWriter, "sync", pretend)


def _forget_to_sync_the_directory() -> AbstractContextManager[Any]:
    write_header = SegmentWriter._write_header

    def without(self: SegmentWriter) -> None:
        with patch.object(self._directory.files, "sync_dir", lambda _path: None):
            write_header(self)

    return patch.object(SegmentWriter, "_write_header", without)


def _leave_a_torn_end() -> AbstractContextManager[Any]:
    def keep(directory: SegmentDirectory, number: int, _limit: int) -> Any:
        return recovery_module.Recovered(directory.files.size(directory.segment_path(number)), 0)

    return patch("pipeline.wire.file_transport.recover_segment", keep)


def _leave_the_first_step_out_of_a_rewind() -> AbstractContextManager[Any]:
    add = published._add
    return patch.object(published, "_add", lambda found, frame, step: add(found, frame, step + 1))


def _leave_a_row_out_of_a_rewind() -> AbstractContextManager[Any]:
    rewind = RowStreamer.rewind
    short = lambda self, ids: rewind(self, {name: ids_n[1:] for name, ids_n in ids.items()})  # noqa: E731
    return patch.object(RowStreamer, "rewind", short)


def _withdraw_nothing_at_a_rewind() -> AbstractContextManager[Any]:
    """Rows that only the dead process had stay."""
    rewind = RowStreamer.rewind

    def rewind_held(self: RowStreamer, ids: Any) -> Any:
        everything = self._source.at_fence(lambda _step: self._source.freeze("all", changed_since=0))
        with closing(everything):
            held = {name: ids_n[np.isin(ids_n, everything.ids(name))] for name, ids_n in ids.items()}
        return rewind(self, held)

    return patch.object(RowStreamer, "rewind", rewind_held)


@contextmanager
def _compress_with_what_no_header_has_brought() -> Iterator[None]:
    pack = Packer.pack

    def pack_early(self: Packer, frame: Any) -> bytes:
        self.brought()
        return pack(self, frame)

    with patch.object(Packer, "needs_header", False), patch.object(Packer, "pack", pack_early):
        yield


@contextmanager
def _shuffle_the_rows_of_all_runs_as_one() -> Iterator[None]:
    def as_one(rows_b: Any, heads: Any) -> Any:
        width = next((head.row_bytes for head in heads if head.num_rows), 1)
        whole = rows_b[: rows_b.size // width * width]
        return np.concatenate([np.ascontiguousarray(whole.reshape(-1, width).T).reshape(-1), rows_b[whole.size :]])

    with patch.object(encoding, "shuffle_rows", as_one), patch.object(rows_content, "shuffle_rows", as_one):
        yield


def _sort_ids_without_their_rows() -> AbstractContextManager[Any]:
    def sort(room: Any, frame: Any) -> None:
        rows_b = room.content_b[room.rows_at : room.versions_at]
        kept_b = rows_b.copy()
        rows_content.sort_content(room, frame)
        rows_b[:] = kept_b

    return patch.object(whole_cut, "sort_content", sort)


SABOTAGES: dict[str, Sabotage] = {
    "skip the last batch": _skip_the_last_batch,
    "forget what an abandoned cut held": _forget_what_an_abandoned_cut_held,
    "commit before the last frame": _commit_before_the_last_frame,
    "send rows of a newer step": _send_rows_of_a_newer_step,
    "use the number of an abandoned cut again": _use_the_number_of_an_abandoned_cut_again,
    "leave out deleted rows": _leave_out_deleted_rows,
    "drop an id when coalescing": _drop_an_id_when_coalescing,
    "forget a row in snapshot cuts": _forget_a_row_in_snapshot_cuts,
    "trim past the snapshot cut": _trim_past_the_snapshot_cut,
    "lose cuts committed during a snapshot cut": _trim_behind_the_snapshot_cut_only,
    "forget the steps that ended": _forget_the_steps_that_ended,
    "commit without sync": _commit_without_sync,
    "freeze outside the fence": _freeze_outside_the_fence,
    "leave the first step out of a rewind": _leave_the_first_step_out_of_a_rewind,
    "leave a row out of a rewind": _leave_a_row_out_of_a_rewind,
    "withdraw nothing at a rewind": _withdraw_nothing_at_a_rewind,
    "compress with a dictionary that no header has brought": _compress_with_what_no_header_has_brought,
    "shuffle the rows of all runs as one": _shuffle_the_rows_of_all_runs_as_one,
    "sort ids without their rows": _sort_ids_without_their_rows,
    "forget sync": _forget_sync,
    "forget to sync the directory": _forget_to_sync_the_directory,
    "leave a torn end": _leave_a_torn_end,
}
"""Name to a context manager that breaks it."""
