"""The command ``python -m pipeline replica``: follow a stream, look rows up, export a table.

Without ``follow`` it applies what is there and ends. SIGINT and SIGTERM end a ``follow`` between two batches of frames:
what is held then is a whole cut, so the export and the figures still come.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

import numpy as np

from pipeline.replica.errors import ReplicaError
from pipeline.replica.progress import ReplicaProgress
from pipeline.replica.replica import PINNED_BYTES, STAGE_BYTES, Replica
from pipeline.replica.report import figures, lines
from pipeline.replica.targets.choose import MEMORY
from pipeline.rows.memory import keep_freed_memory
from pipeline.rows.version import unpack_versions
from pipeline.wire.frames import CutPosition

DONE, INTERRUPTED = 0, 130


class UsageError(ReplicaError):
    """Options that do not go together."""

    exit_code = 2


def follow(
    source: str,
    *,
    table: str | None = None,
    export: str | os.PathLike[str] | None = None,
    follow: bool = False,
    until_end: bool = False,
    lookup: Sequence[int] = (),
    as_json: bool = False,
    pinned_bytes: int = PINNED_BYTES,
    path: str | None = None,
    target: str = MEMORY,
    checkpoint: str | None = None,
    at: tuple[int, int] | None = None,
    to_step: int | None = None,
    retained: bool = False,
    stage_bytes: int | None = None,
    stage_dir: str | None = None,
) -> int:
    """Run the command; returns the exit code: 0, or 130 when a signal ended ``follow`` before ``until_end`` was
    reached.

    ``path``, ``target``, ``checkpoint``, ``stage_bytes`` and ``stage_dir``: as of ``Replica``. ``at`` or ``to_step``: go to that cut
    and no further. ``retained``: list the cuts that can be gone to, and end. ``export`` and ``lookup`` are about ``table``. With
    ``as_json`` one line of JSON on standard output tells the figures of ``report`` at the end. Raises ReplicaError, and errors of
    the wire and of files, which say what to do.
    """
    if (export is not None or lookup) and table is None:
        raise UsageError("--export and --lookup need --table, the name of the table they are about")
    keep_freed_memory()
    goes_to = at is not None or to_step is not None
    with Replica(
        source,
        path=path,
        target=target,
        checkpoint=checkpoint,
        pinned_bytes=pinned_bytes,
        stage_bytes=STAGE_BYTES if stage_bytes is None else stage_bytes,
        stage_dir=stage_dir,
    ) as replica:
        if replica.notice is not None:
            print(replica.notice, file=sys.stderr, flush=True)
        if retained:
            _print_retained(replica)
            return DONE
        interrupted = False
        if goes_to:
            replica.rollback(None if at is None else CutPosition(*at), step=to_step)
        else:
            interrupted = _follow(replica, until_end) if follow else _catch_up(replica)
        if table is not None:
            _tell_table(replica, table, lookup, export, sys.stderr if as_json else sys.stdout)
        if as_json:
            print(json.dumps(figures(replica)), flush=True)
        if not follow and not goes_to:
            # Last: what lies before a torn end is a whole cut, and was asked for.
            replica.check_end()
    return INTERRUPTED if interrupted and until_end else DONE


def _tell_table(
    replica: Replica, table: str, lookup: Sequence[int], export: str | os.PathLike[str] | None, told: TextIO
) -> None:
    if lookup:
        _print_rows(replica, table, lookup)
    if export is not None:
        replica.export(table, export)
        print(f"step {replica.step}: wrote {export}", file=told)


def _catch_up(replica: Replica) -> bool:
    with ReplicaProgress(lambda: lines(replica)) as progress:
        while (applied := replica.advance(0)) is not None:
            progress.show()
            del applied
        replica.require_start()
    progress.say()
    return False


def _follow(replica: Replica, until_end: bool) -> bool:
    """Returns whether a signal ended it."""
    with stop_on_signals() as stop, ReplicaProgress(lambda: lines(replica), at_once=True) as progress:
        replica.follow(stop, until_end=until_end, on_progress=progress.show)
        interrupted = stop.is_set()
    progress.say()
    return interrupted


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second one acts as it did before."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_retained(replica: Replica) -> None:
    """One line of JSON per cut."""
    for cut in replica.retained():
        shown = {"cut": f"{cut.position.generation}:{cut.position.cut}", "step": cut.step, "clock_ns": cut.clock_ns}
        print(json.dumps({**shown, "base": f"{cut.base.generation}:{cut.base.cut}"}))


def _print_rows(replica: Replica, table: str, ids: Sequence[int]) -> None:
    """One line of JSON per id: id, generation and step of its last update (0: never updated), weights."""
    ids_n = np.array(ids, dtype=np.int64)
    with replica.view() as view:
        weights_nd, versions_n = view.lookup_versions(table, ids_n)
    versions = unpack_versions(versions_n).tolist()
    for row_id, (generation, step), weights in zip(ids_n.tolist(), versions, weights_nd.tolist(), strict=True):
        print(json.dumps({"id": row_id, "generation": generation, "step": step, "weights": weights}))
