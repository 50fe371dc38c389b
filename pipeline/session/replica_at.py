"""A replica that stands at the step of a checkpoint: built from the stream, cut by cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from pipeline.files import RealFiles
from pipeline.replica import Replica
from pipeline.replica.sources import StreamPlace
from pipeline.rowlog import CheckpointReader, read_catalog
from pipeline.session.errors import NoCommonStep, NoRun, OtherRunsStream
from pipeline.session.rundir import describe
from pipeline.wire import CutPosition, HeaderFrame, Transport, decode_frame
from pipeline.wire.transport import Position, Subscription


class CutByCut:
    """A transport that gives its frames one at a time: so a replica applies at most one cut at a time."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.name = transport.name

    def subscribe(self, position: Position | None) -> OneFrame:
        return OneFrame(self._transport.subscribe(position))


class OneFrame:
    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._frames: list[tuple[Position, bytes]] = []

    def next(self, timeout: float | None) -> list[tuple[Position, bytes]] | None:
        if not self._frames:
            self._frames = (self._subscription.next(timeout) or [])[::-1]
        return [self._frames.pop()] if self._frames else None

    def check_end(self) -> None:
        self._subscription.check_end()

    def close(self) -> None:
        self._subscription.close()


class CommonStep:
    """A context manager: ``replica`` and ``reader`` are of one step, the newest that both can tell.

    Raises NoRun, StreamAbsent, OtherRunsStream, NoCommonStep, and what the replica and the checkpoint's reader raise.
    """

    def __init__(self, source: str, run_dir: Path) -> None:
        self._place, self._run_dir = StreamPlace(source), run_dir
        self._run_id = str(describe(run_dir)["run_id"])
        self.header: HeaderFrame
        """Of the stream, as it began where it can be read."""

    def __enter__(self) -> CommonStep:
        try:
            transports = self._place.require()
            self.header = _first_header(transports[0])
            if self.header.run_id != self._run_id:
                raise OtherRunsStream(self._place.name, self.header.run_id, self._run_dir, self._run_id)
            self.replica = Replica(transports)
            self.reader = self._choose(transports)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        if hasattr(self, "replica"):
            self.replica.close()
        self._place.close()

    def _choose(self, transports: Sequence[Transport]) -> CheckpointReader:
        self.replica.apply_available()
        self.replica.require_start()
        readers = _checkpoints(self._run_dir)
        if readers[0].manifest.step == self.replica.step:
            return readers[0]
        last = self.replica.step
        standing = cuts(transports)
        for reader in readers:
            positions = [position for position, step in standing if step == reader.manifest.step]
            if positions:
                self.replica.close()
                self.replica = replica_at(transports, positions[-1])
                return reader
        raise NoCommonStep(
            self._run_dir, [reader.manifest.step for reader in readers], [step for _, step in standing], last
        )


def _first_header(transport: Transport) -> HeaderFrame:
    subscription = transport.subscribe(None)
    try:
        frames = subscription.next(1.0) or []
        header = decode_frame(frames[0][1])
    finally:
        subscription.close()
    assert isinstance(header, HeaderFrame), "a stream, and each part of it that retention leaves, begins with a header"
    return header


def _checkpoints(run_dir: Path) -> list[CheckpointReader]:
    """Of a run, newest first. Raises NoRun."""
    directory = run_dir / "checkpoints"
    names = read_catalog(RealFiles(), str(directory)) if directory.is_dir() else []
    if not names:
        raise NoRun(run_dir, "checkpoint yet")
    found = (_open(directory, name) for name in names)
    return [reader for reader in found if reader is not None]


def _open(directory: Path, name: str) -> CheckpointReader | None:
    """None where a run that goes on has removed it since."""
    try:
        return CheckpointReader(RealFiles(), str(directory / name))
    except FileNotFoundError:
        if name in read_catalog(RealFiles(), str(directory)):
            raise
        return None


def cuts(transports: Sequence[Transport]) -> list[tuple[CutPosition, int]]:
    """Position and step of each cut at which a replica that begins now stands, in order. Holds no rows."""
    found = []
    with Replica(_cut_by_cut(transports), tables=()) as walker:
        while (applied := walker.advance(0)) is not None:
            if applied:
                found.append((walker.position, walker.step))
    return found


def replica_at(transports: Sequence[Transport], position: CutPosition) -> Replica:
    """One that has applied all up to the cut at ``position``, and nothing behind it."""
    replica = Replica(_cut_by_cut(transports))
    while replica.position != position and replica.advance(0) is not None:
        pass
    return replica


def _cut_by_cut(transports: Sequence[Transport]) -> list[Transport]:
    """A replica asks its transports for a name and a subscription alone."""
    return [cast(Transport, CutByCut(one)) for one in transports]
