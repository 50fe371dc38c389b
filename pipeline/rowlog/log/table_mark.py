"""One table of the log while a checkpoint is being written.

How a checkpoint comes to hold the rows of one moment, while puts go on. Rules.

1. The mark ends all segments. What was put before lies below it, and what is needed of that is named, and held, at once.
2. Rows of that moment which were not put yet (they were dirty in the tiers above) are appended later, to segments of their own,
   which are named too: ``save``. So the named segments hold nothing younger than the mark, and of each id the row of that moment.
3. A row that was dirty at the mark may be put at any time after it. So whoever looks for rows to save looks in the tiers above
   first, from the top down, and last at what was put since: a row that moves down is met again.
4. A saved row is the newest from then on, unless a younger one was put, or the row forgotten, since the mark. One that was put
   since may be older than the saved one: a tier above, from which the row had moved up again, put down what it had left.
   After the save nobody puts an older one: see ``store.tier.GetsSaved``. A row that was forgotten since is forgotten once more,
   behind what was saved of it: later checkpoints name that record too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from pipeline.rowlog.log.records import ROW_BITS
from pipeline.rowlog.log.segment import Kind, Segment

if TYPE_CHECKING:
    from pipeline.rowlog.log.log_table import LogTable

Int64s = npt.NDArray[np.int64]
ROW_MASK: Final = (1 << ROW_BITS) - 1
NO_IDS: Final = np.empty(0, dtype=np.int64)


class TableMark:
    """``LogTable.mark`` from its making to ``end``. Takes the table's lock itself."""

    def __init__(self, table: LogTable) -> None:
        self._table = table
        self.named: list[Segment] = []
        self.forgotten: list[Int64s] = []
        """Ids deleted since the mark."""
        self.versions: dict[int, Int64s] = {}
        """Of the records in segments that were put and sealed since the mark: 8 bytes each, until ``end``."""
        with table.lock:
            assert table.mark is None, "one checkpoint at a time"
            table.end_all()
            self.number = table.next_number
            for segment in table.segments.values():
                self.name(segment)
            table.mark = self

    def name(self, segment: Segment) -> None:
        """Hold a segment for the checkpoint. Under the table's lock."""
        segment.pins += 1
        self.named.append(segment)

    def put_since(self, footer_ids: Callable[[Segment], Int64s]) -> Iterator[Int64s]:
        """Ids that were put or deleted since the mark, piece by piece; more may be among them. ``footer_ids`` reads a sealed segment's."""
        table = self._table
        with table.lock:
            since = [one for one in table.segments.values() if one.number >= self.number and one.kind is Kind.PUT]
            for segment in since:
                segment.users += 1
            forgotten = list(self.forgotten)
        try:
            yield from forgotten
            for segment in since:
                with table.lock:
                    filling = table.unsealed.get(segment.number)
                    ids_n = None if filling is None else filling.ids_n[: segment.num_rows].copy()
                yield footer_ids(segment) if ids_n is None else ids_n
        finally:
            for segment in since:
                table.count_out(segment)

    def save(self, ids_n: Int64s, rows_nb: npt.NDArray[np.uint8], versions_n: Int64s) -> None:
        """Append rows as they stood at the mark, ids distinct; each once."""
        table = self._table
        with table.lock:
            table.max_version = max(table.max_version, int(versions_n.max(initial=0)))
            places_n = table.append(ids_n, rows_nb, versions_n, Kind.SAVED)
            held_n = table.index.find(ids_n)
            newest_n = self._versions_since(held_n) <= versions_n
            forgotten_n = np.isin(ids_n, np.concatenate([NO_IDS, *self.forgotten]))
            newest_n &= ~forgotten_n
            table.accounts.leave(table.index.put(ids_n[newest_n], places_n[newest_n]))
            table.accounts.leave(places_n[~newest_n])
            table.bury(ids_n[forgotten_n & (held_n < 0)])

    def _versions_since(self, places_n: Int64s) -> Int64s:
        """Versions of records that were put since the mark; 0 for those of before, which compaction may have moved since."""
        table, versions_n = self._table, np.zeros(len(places_n), dtype=np.int64)
        for number in np.unique(places_n[places_n >= self.number << ROW_BITS] >> ROW_BITS).tolist():
            if table.segments[number].kind is Kind.PUT:
                filling = table.unsealed.get(number)
                known_r = self.versions[number] if filling is None else filling.versions_n
                here = np.flatnonzero(places_n >> ROW_BITS == number)
                versions_n[here] = known_r[places_n[here] & ROW_MASK]
        return versions_n

    def end(self) -> list[Segment]:
        """End what ``save`` has filled. Returns what the checkpoint names, held; the last ones may not be sealed yet."""
        table = self._table
        with table.lock:
            table.end_kind(Kind.SAVED)
            table.mark = None
            return self.named
