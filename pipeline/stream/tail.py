"""The end of a stream that another process wrote: its last committed cut, with the ids in it.

A resumed writer goes on behind that cut, and proves with it that it has come to the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pipeline.stream.source import Int64s
from pipeline.wire.frames import CommitFrame, CutPosition, Frame, HeaderFrame, RowsFrame
from pipeline.wire.reading import FrameReader


@dataclass(frozen=True, slots=True)
class StreamTail:
    """``ids`` and ``dead`` by table: the rows that the cut ``shown`` carried, and those it said are gone. ``whole``: all its frames were
    seen. ``alone``: it is a snapshot cut that no ordinary one goes with; its ids are not gathered.
    """

    header: HeaderFrame
    """Of that cut."""
    commit: CommitFrame
    """Of the last cut."""
    shown: CommitFrame
    """The same; but where that only says that the run has ended, the cut before it, which is of the same step."""
    ids: Mapping[str, Int64s]
    dead: Mapping[str, Int64s]
    whole: bool
    alone: bool = False


def find_tail(parts: Iterable[list[bytes]], newest: CutPosition | None = None) -> StreamTail | None:
    """The last committed cut, of one shard; with ``newest`` the last up to that. ``parts`` are the frames of neighbouring pieces of the
    stream, each beginning with a header, the newest piece first; as many are looked at as are needed. None where no cut was ever
    committed. What comes of an older generation behind the header of a newer one is passed over, as by readers. Raises FrameError.
    """
    frames: list[Frame] = []
    found: StreamTail | None = None
    for part in parts:
        begun, older = found is not None, _decode(part, newest)
        frames = older + frames
        found = _last_of(frames)
        if found is not None and (found.whole or (begun and any(map(_is_ordinary, older)))):
            break  # frames of a cut do not lie before an earlier commit frame
    return found


def _decode(part: Iterable[bytes], newest: CutPosition | None) -> list[Frame]:
    """All but the rows of snapshot cuts, what comes behind ``newest``, and what a trainer that was replaced has published."""
    frames: list[Frame] = []
    generation = 0
    for frame in map(FrameReader().read, part):
        generation = max(generation, frame.generation)
        if frame.generation < generation:
            continue
        wanted = isinstance(frame, HeaderFrame) or newest is None or frame.position <= newest
        if wanted and (isinstance(frame, HeaderFrame | CommitFrame) or not frame.snapshot):
            frames.append(frame)
    return frames


def _is_ordinary(frame: Frame) -> bool:
    return isinstance(frame, CommitFrame) and not frame.snapshot


def _last_of(frames: Iterable[Frame]) -> StreamTail | None:
    header: HeaderFrame | None = None
    making: dict[CutPosition, list[RowsFrame]] = {}
    numbers: dict[CutPosition, int] = {}
    last: StreamTail | None = None
    for frame in frames:
        if isinstance(frame, HeaderFrame):
            header = frame
        elif isinstance(frame, CommitFrame):
            assert header is not None, "a run of frames begins with a header"
            if frame.snapshot:
                if last is None or frame.position > last.commit.position:
                    last = StreamTail(header, frame, frame, {}, {}, whole=False, alone=True)
                continue
            whole = numbers.get(frame.position, 0) == frame.num_frames
            if frame.end and not frame.num_frames and last is not None and last.commit.step == frame.step:
                last = replace(last, commit=frame)
            else:
                last = StreamTail(header, frame, frame, *_ids(making.get(frame.position, [])), whole)
            making, numbers = {}, {}
        else:
            numbers[frame.position] = numbers.get(frame.position, 0) + 1
            if isinstance(frame, RowsFrame):
                making.setdefault(frame.position, []).append(frame)
    return last


def _ids(frames: list[RowsFrame]) -> tuple[dict[str, Int64s], dict[str, Int64s]]:
    parts = [part for frame in frames for part in frame.rows]
    held = ((part.table, part.ids_n) for part in parts)
    dead = ((part.table, part.tombstones_m) for part in parts)
    return dict(_joined(held)), dict(_joined(dead))


def _joined(pieces: Iterable[tuple[str, Int64s]]) -> Iterator[tuple[str, Int64s]]:
    by_table: dict[str, list[Int64s]] = {}
    for table, ids in pieces:
        if len(ids):
            by_table.setdefault(table, []).append(ids)
    return ((table, np.concatenate(arrays)) for table, arrays in by_table.items())
