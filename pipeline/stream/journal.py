"""What a stream carries, all its shards, read backwards by who goes on with it.

Rules.

1. The header of the new generation is published on every shard, acknowledged, before this is asked. What a trainer that was replaced
   publishes behind it no reader takes, and neither does this.
2. The last cut is the newest that every shard has committed. What lies behind it on some shards only, no replica will ever have.
3. So rows are looked for back to a cut that all shards have; what only some have says nothing of what replicas hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.stream.published import published_since
from pipeline.stream.source import Int64s
from pipeline.stream.tail import StreamTail, find_tail
from pipeline.wire.frames import CutPosition
from pipeline.wire.shares import join_commits
from pipeline.wire.transport import Transport


class Journal:
    """Of the stream that lies in ``transports``, in the order of its shards. Nobody publishes meanwhile."""

    def __init__(self, transports: Sequence[Transport]) -> None:
        self._transports = transports

    def tail(self) -> StreamTail | None:
        """The last cut: what its shares say together. None where none is whole on all shards. Raises FrameError, StreamCorrupt."""
        newest: CutPosition | None = None
        while True:
            tails = [find_tail(transport.newest_first(), newest) for transport in self._transports]
            found = [tail for tail in tails if tail is not None]
            if len(found) < len(tails):
                return None
            newest = min(tail.commit.position for tail in found)
            if all(tail.commit.position == newest for tail in found):
                return _joined(found)

    def published_since(self, step: int) -> dict[str, Int64s]:
        """Ids by table, distinct and rising, of the rows that were published in a version of a step behind ``step``, or as gone; see
        ``published``.
        """
        tail = self.tail()
        newest = None if tail is None else tail.commit.position
        shares = [published_since(transport.newest_first(), step, newest) for transport in self._transports]
        return {table: np.sort(ids_n) for table, ids_n in _concatenated(shares).items()}


def _joined(tails: Sequence[StreamTail]) -> StreamTail:
    if len(tails) == 1:
        return tails[0]
    shown = [tail.shown for tail in tails]
    return StreamTail(
        header=tails[0].header,
        commit=join_commits([tail.commit for tail in tails]),
        shown=join_commits(shown),
        ids=_concatenated([tail.ids for tail in tails]),
        dead=_concatenated([tail.dead for tail in tails]),
        whole=all(tail.whole for tail in tails) and len({commit.position for commit in shown}) == 1,
        alone=any(tail.alone for tail in tails),
    )


def _concatenated(shares: Sequence[Mapping[str, Int64s]]) -> dict[str, Int64s]:
    tables = {table for share in shares for table in share}
    return {table: np.concatenate([share[table] for share in shares if table in share]) for table in sorted(tables)}
