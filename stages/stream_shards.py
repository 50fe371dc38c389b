"""Whether what lies where a stream is to go is this run's to go on with."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.stream import check_same_selection
from pipeline.wire import StreamedTable
from pipeline.wire.file_shards import read_header
from pipeline.wire.places import StreamPlaces
from stages.errors import ShardsChanged, StreamTaken


def check_taken(places: StreamPlaces, run_id: str | None, tables: Sequence[StreamedTable]) -> None:
    """Claim what a resumed run goes on with; nothing where there is none. ``run_id`` None: the run begins, and may
    replace what is there.

    Raises StreamTaken for the stream of another run, ShardsChanged for one of another number of shards, SelectionChanged for one that
    does not carry ``tables``.
    """
    found, place = places.list_found(), places.place
    if not found:
        return
    if run_id is None:
        if not places.replace:
            raise StreamTaken(place)
        for name in found:
            places.remove(name)
        return
    known = dict(zip(places.names, places.transports, strict=True))
    if not known.keys() >= set(found):
        raise ShardsChanged(place, "1 shard" if len(found) == 1 else f"{len(found)} shards", len(known))
    for name in found:
        if places.claim_to_read:
            # This cuts off what a crash left of an end that was not durable: it may look like damage to who only reads.
            known[name].claim()
        header = read_header(known[name])
        if header is not None and header.run_id != run_id:
            raise StreamTaken(place)
        if header is not None and header.num_shards != len(known):
            raise ShardsChanged(place, f"{header.num_shards} shards", len(known))
        if header is not None:
            check_same_selection(place, header, tables)
        known[name].claim()
