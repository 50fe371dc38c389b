"""What a stream holds already, for who opens it again: whose it is, and where it goes on."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.stream.errors import OtherStream, StreamExists
from pipeline.stream.journal import Journal
from pipeline.stream.options import StreamIdentity
from pipeline.stream.tail import StreamTail
from pipeline.wire.frames import START, CutPosition, HeaderFrame, StreamedTable
from pipeline.wire.reading import FrameReader
from pipeline.wire.transport import Transport

WRITER = "trainer"


@dataclass(frozen=True, slots=True)
class StreamLife:
    """An earlier life of a stream."""

    header: HeaderFrame
    """The newest."""
    tail: StreamTail | None
    """None where no cut was ever committed."""

    @property
    def position(self) -> CutPosition:
        return START if self.tail is None else self.tail.commit.position

    @property
    def step(self) -> int:
        """The last published step; 0 where none is."""
        return 0 if self.tail is None else self.tail.commit.step

    def check(self, name: str, run: str | None, tables: Sequence[StreamedTable]) -> None:
        """Raises OtherStream unless ``run`` with these tables may go on with it."""
        if run is not None and run != self.header.run_id:
            raise OtherStream(name, f"it is of run {self.header.run_id!r}, not {run!r}")
        if self.header.best_effort:
            raise OtherStream(name, "it is a run's best-effort stream, and only that knows which rows it has not sent")
        known = {table.spec.name: table for table in self.header.tables}
        given = {table.spec.name: table for table in tables}
        if known.keys() != given.keys():
            raise OtherStream(name, f"it carries the tables {sorted(known)}, not {sorted(given)}")
        for table, one in given.items():
            if (one.spec, one.carries) != (known[table].spec, known[table].carries):
                raise OtherStream(name, f"its table {table!r} is another: {_told(known[table])}, not {_told(one)}")


@dataclass(frozen=True, slots=True)
class Beginning:
    """Who writes from here on, and where."""

    identity: StreamIdentity
    position: CutPosition = START
    step: int = 0
    dictionary: bytes = b""


def find_beginning(
    transports: Sequence[Transport], place: str, tables: Sequence[StreamedTable], *, resume: bool, run: str | None
) -> Beginning:
    """Claim the transports of all shards and find what they hold.

    Raises StreamExists, OtherStream, FrameError, and what the transports raise.
    """
    for transport in transports:
        transport.claim()
    life = _find_life(transports)
    if life is None:
        return Beginning(StreamIdentity(run or uuid.uuid4().hex, WRITER, 1))
    if not resume:
        raise StreamExists(place)
    life.check(place, run, tables)
    identity = StreamIdentity(life.header.run_id, WRITER, life.header.generation + 1)
    return Beginning(identity, life.position, life.step, life.header.dictionary)


def _find_life(transports: Sequence[Transport]) -> StreamLife | None:
    """None for a new stream."""
    found = [_newest_header(transport.newest_first()) for transport in transports]
    header = max((one for one in found if one is not None), key=lambda one: one.generation, default=None)
    return None if header is None else StreamLife(header, Journal(transports).tail())


def _newest_header(parts: Iterable[Sequence[bytes]]) -> HeaderFrame | None:
    for part in parts:
        reader = FrameReader()
        for data in part:
            reader.read(data)
        if reader.header is not None:
            return reader.header
    return None


def _told(table: StreamedTable) -> str:
    columns = [f"{column.name} {column.dtype}[{column.width}]" for column in table.spec.layout.columns]
    begins = table.spec.initializer if table.spec.default is None else f"default {table.spec.default}"
    return f"{', '.join(columns)}, {begins}, seed {table.spec.seed}"
