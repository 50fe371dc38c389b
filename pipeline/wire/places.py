"""Where a stream lies, all its shards: in a directory, or in a broker.

A stream of one shard lies in the directory, or the stream of a broker, that is named; of several, each lies in one of its own, NAME-0000,
NAME-0001 and so on (``file_shards`` for directories). How many there are, each header says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import fspath
from pathlib import Path

from pipeline.files import Files
from pipeline.wire.broker.options import BrokerOptions
from pipeline.wire.errors import StreamAbsent
from pipeline.wire.file_shards import list_shards, read_header, shard_paths
from pipeline.wire.file_transport import FileTransportOptions
from pipeline.wire.nats.options import NatsOptions
from pipeline.wire.opening import FileOptions, make_broker, open_transport, parse_url
from pipeline.wire.redis.options import RedisOptions
from pipeline.wire.transport import Transport

Options = FileOptions | NatsOptions | RedisOptions
Open = Callable[[str], Transport]


@dataclass(frozen=True, slots=True)
class StreamPlaces:
    """What a writer needs to know before it claims anything."""

    place: str
    """Of the whole stream, for people."""
    names: Sequence[str]
    """Of the shards, in order."""
    transports: Sequence[Transport]
    """Theirs."""
    list_found: Callable[[], Sequence[str]]
    """Names under which somebody has claimed a shard of this stream; none where there is no stream."""
    claim_to_read: bool
    """Whether a crash may have left an end that looks like damage to who has not claimed it."""
    replace: bool = False
    """Whether a run that begins removes what another one left."""
    remove: Callable[[str], None] = lambda _name: None
    """Remove one of those found; where ``replace`` says so."""

    def close(self) -> None:
        for transport in self.transports:
            transport.close()


def open_places(
    options: Options,
    path: Path,
    num_shards: int,
    *,
    files: Files | None = None,
    file_options: FileTransportOptions | None = None,
    generation: int = 0,
) -> StreamPlaces:
    """A transport for each shard, for a writer. ``path``, ``files`` and ``file_options`` are of the ``file`` transport; for ``generation``
    see ``open_transport``. Touches nothing yet. Raises TransportError where a key is no good.
    """
    if isinstance(options, BrokerOptions):
        names = shard_names(options.stream, num_shards)
        transports = [open_transport(named(options, name), generation=generation) for name in names]
        return StreamPlaces(
            place_of(options),
            names,
            transports,
            list_found=lambda: _list_claimed(options),
            claim_to_read=False,
            replace=options.replace,
            remove=lambda name: _remove(named(options, name)),
        )
    names = shard_paths(str(path), num_shards)
    transports = [open_transport(options, path=Path(name), files=files, file_options=file_options) for name in names]
    return StreamPlaces(str(path), names, transports, lambda: list_shards(str(path), files), True)


def find_places(source: Options | str, path: Path | None = None) -> Sequence[Transport] | None:
    """The transports of a stream that is there, for a reader, in the order of its shards; None while it is not there, or not all of it.

    ``source``: settings, with ``path`` for the ``file`` transport, or a URL. Raises TransportError: for a URL that is no good, and
    BrokerUnreachable and BrokerRefuses.
    """
    if isinstance(source, str):
        source, path = parse_url(source)
    if isinstance(source, BrokerOptions):
        options = source
        return _find(shard_names(options.stream, 1)[0], lambda n: shard_names(options.stream, n), _open_in(options))
    assert path is not None, "a file transport has a directory"
    directory, files = fspath(path), source
    return _find(directory, lambda n: shard_paths(directory, n), lambda name: open_transport(files, path=Path(name)))


def _remove(options: NatsOptions | RedisOptions) -> None:
    broker = make_broker(options)
    try:
        broker.remove()
    finally:
        broker.close()


def place_of(options: BrokerOptions) -> str:
    """For people, without credentials."""
    return f"{options.url}/{options.stream}"


def shard_names(stream: str, num_shards: int) -> list[str]:
    return [stream] if num_shards == 1 else [f"{stream}-{number:04d}" for number in range(num_shards)]


def named(options: NatsOptions | RedisOptions, stream: str) -> NatsOptions | RedisOptions:
    return options.model_copy(update={"stream": stream})


def _open_in(options: NatsOptions | RedisOptions) -> Open:
    return lambda name: open_transport(named(options, name))


def _find(whole: str, names: Callable[[int], Sequence[str]], open_one: Open) -> Sequence[Transport] | None:
    transport = open_one(whole)
    if _is_claimed(transport):
        return (transport,)
    transport.close()
    header, claimed = None, False
    transport = open_one(names(2)[0])
    try:
        claimed = _is_claimed(transport)
        header = read_header(transport) if claimed else None
    finally:
        transport.close()
    if header is None:
        return None
    transports = [open_one(name) for name in names(header.num_shards)]
    if all(map(_is_claimed, transports)):
        return transports
    for transport in transports:
        transport.close()
    return None


def _is_claimed(transport: Transport) -> bool:
    try:
        return bool(transport.epoch)
    except StreamAbsent:
        return False
    except BaseException:
        transport.close()
        raise


def _list_claimed(options: NatsOptions | RedisOptions) -> list[str]:
    found = find_places(options)
    if found is None:
        first = open_transport(named(options, shard_names(options.stream, 2)[0]))
        try:
            return [shard_names(options.stream, 2)[0]] if _is_claimed(first) else []
        finally:
            first.close()
    for transport in found:
        transport.close()
    return shard_names(options.stream, len(found))
