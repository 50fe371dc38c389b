"""The transports of a stream's shards, and whether what lies there is this run's to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.files import Files
from pipeline.stream import check_same_selection
from pipeline.wire import FileTransport, FileTransportOptions, StreamedTable
from pipeline.wire.file_shards import list_shards, open_shards, read_header
from stages.errors import ShardsChanged, StreamTaken


def open_transports(
    path: Path, num_shards: int, files: Files, options: FileTransportOptions
) -> Sequence[FileTransport]:
    """One for each shard, in order. Touches nothing yet."""
    return open_shards(str(path), num_shards, files, options)


def check_taken(
    path: Path,
    transports: Sequence[FileTransport],
    files: Files,
    run_id: str | None,
    tables: Sequence[StreamedTable],
) -> None:
    """Claim what a resumed run goes on with; nothing where there is none. ``run_id`` None: the run begins.

    Raises StreamTaken for the stream of another run, ShardsChanged for one of another number of shards, SelectionChanged for one that
    does not carry ``tables``.
    """
    found = list_shards(str(path), files)
    if not found:
        return
    if run_id is None:
        raise StreamTaken(path)
    known = {transport.directory: transport for transport in transports}
    if not known.keys() >= set(found):
        raise ShardsChanged(path, "1 shard" if found == [str(path)] else f"{len(found)} shards", len(transports))
    for directory in found:
        # This cuts off what a crash left of an end that was not durable: it may look like damage to who only reads.
        known[directory].claim()
        header = read_header(known[directory])
        if header is not None and header.run_id != run_id:
            raise StreamTaken(path)
        if header is not None and header.num_shards != len(transports):
            raise ShardsChanged(path, f"{header.num_shards} shards", len(transports))
        if header is not None:
            check_same_selection(str(path), header, tables)
