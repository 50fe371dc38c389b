"""Checks every checksum of a run: its checkpoints and its stream. Needs no trainer and no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.files import RealFiles
from pipeline.replica import Replica, ReplicaError
from pipeline.rowlog import CheckpointReader, RowLogError, read_catalog
from pipeline.rowlog.checkpoint.verifying import Checked, check_checkpoint
from pipeline.session.errors import NotYet
from pipeline.session.rundir import describe, is_live
from pipeline.wire import WireError


@dataclass(slots=True)
class Verified:
    """``parts``: a line for each checkpoint, and for the stream. ``notes``: what a crash may leave, and a resume puts right."""

    parts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(run_dir: Path, as_json: bool) -> int:
    """Print what was checked and what is wrong. Returns the exit code: 1 when anything is. Raises NoRun, NotYet."""
    config = describe(run_dir).get("config", {})
    if is_live(run_dir):
        raise NotYet(f"a check of the live run in {run_dir}", "wait until it has ended")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    verified = Verified()
    with console.status("reading ...") as status:
        _check_checkpoints(run_dir / "checkpoints", verified, lambda said: status.update(said))
        stream = config.get("stages", {}).get("stream") or {}
        transport = stream.get("transport") or {}
        if transport.get("kind", "file") != "file":
            _check_stream(str(run_dir), f"{transport.get('url')}/{transport.get('stream')}", verified)
        elif (directory := Path(stream.get("path") or run_dir / "stream")).is_dir():
            _check_stream(str(stream.get("path") or run_dir), str(directory), verified)
    _print(verified, as_json)
    return 1 if verified.problems else 0


def _check_checkpoints(directory: Path, verified: Verified, say: Any) -> None:
    files, checked = RealFiles(), Checked()
    names = read_catalog(files, str(directory))
    for name in names:
        path, before = directory / name, len(checked.problems)
        try:
            reader = CheckpointReader(files, str(path))
            for _ in check_checkpoint(reader, checked):
                say(f"{name}: {checked.segments} segments, {checked.nbytes >> 20} MiB")
        except (RowLogError, OSError) as error:
            checked.problems.append(str(error))
        state = "whole" if len(checked.problems) == before else "DAMAGED"
        verified.parts.append(f"{path}: {state}")
    if names:
        told = f"{checked.segments} segments, {checked.records} records, {checked.nbytes} bytes"
        verified.parts.append(f"checkpoints: {told}")
    else:
        verified.parts.append(f"{directory}: no checkpoint")
    verified.problems += checked.problems


def _check_stream(source: str, place: str, verified: Verified) -> None:
    """A replica that holds no table checks all that any replica would: frames, the order of cuts, their digests."""
    with Replica(source, tables=()) as replica:
        try:
            replica.apply_available()
            state = "whole"
        except (ReplicaError, WireError, OSError) as error:
            verified.problems.append(f"{place}: {error}")
            state = "DAMAGED"
        counters = replica.counters
        told = f"up to step {replica.step}, {counters.frames} frames, {counters.bytes} bytes"
        verified.parts.append(f"{place}: {state}, {told}")
        if (unsent := replica.lag.unsent) is not None:
            verified.notes.append(
                f"{place}: best effort, {unsent} changed rows unsent: only without any are its replicas the trainer"
            )
        if state == "whole":
            try:
                replica.check_end()
            except WireError as error:
                verified.notes.append(f"{error}; a resume cuts it off")


def _print(verified: Verified, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"parts": verified.parts, "problems": verified.problems, "notes": verified.notes}))
        return
    for line in verified.parts:
        print(line)
    for line in verified.notes:
        print(f"note: {line}")
    for line in verified.problems:
        print(f"damaged: {line}")
    print("everything is as it was written" if not verified.problems else f"{len(verified.problems)} problems")
