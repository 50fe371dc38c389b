"""Batches announced ahead, and the claim of the one whose turn it is. Everything here runs on the lane ``prefetch``, in order of calls.

Rules.

1. Slots are reserved in the order in which batches were announced; a batch that found no room waits, and those behind it too.
2. A forward takes the announced batch with its ids. Those announced before that one are dropped: the loop has passed them over.
3. A forward that nobody announced reserves for itself. Where L1 has no room for it, the batches announced last lose theirs.
4. What was dropped was never looked up: it changes no row, and is no step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from cuda.plan import BatchIds, UniqueIds
from pipeline.store import Reservation, Store
from pipeline.store.meta import take_meta


@dataclass(slots=True)
class Announced:
    """A batch ahead. ``reservation`` is None while it waits for room."""

    batch: BatchIds
    unique: UniqueIds
    reservation: Reservation | None = None

    def matches(self, batch: BatchIds) -> bool:
        """Whether the rows are the same, occurrence by occurrence; weights may be others, and what comes for meta columns."""
        mine = self.batch
        return (
            mine.num_samples == batch.num_samples
            and np.array_equal(mine.ids_n, batch.ids_n)
            and np.array_equal(mine.offsets_fb, batch.offsets_fb)
        )


class Ahead:
    """``dropped``: batches announced and not used. ``late``: forwards that nobody had announced while others were."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: deque[Announced] = deque()
        self._number = 0
        """Of the last reservation asked for. Steps are counted apart: what is dropped is none."""
        self.dropped = self.late = 0

    def __len__(self) -> int:
        return len(self._queue)

    def announce(self, batch: BatchIds) -> None:
        unique = self._store.backend.deduplicate(batch)
        if unique.count <= self._store.options.l1_rows:  # else its forward says so
            self._queue.append(Announced(_bare(batch), unique))
            self.reserve_waiting()

    def reserve_waiting(self) -> None:
        """Give slots to those that wait, as far as there are any. Raises L1TooSmall and what a tier raises."""
        for one in self._queue:
            if one.reservation is None and not self._reserve(one):
                return

    def set_aside(self) -> None:
        """Give all slots back. What was announced waits again; ``reserve_waiting`` brings it back."""
        for one in self._queue:
            if one.reservation is not None:
                self._store.release(one.reservation)
                one.reservation = None

    def claim(self, batch: BatchIds) -> Reservation:
        """Pinned and loaded, with this batch's own weights and meta columns. Raises L1TooSmall and what a tier raises."""
        at = next((k for k, one in enumerate(self._queue) if one.matches(batch)), None)
        if at is None:
            self.late += bool(self._queue)
            mine = Announced(_bare(batch), self._store.backend.deduplicate(batch))
        else:
            for _ in range(at):
                self._drop(self._queue.popleft())
            mine = self._queue.popleft()
        while mine.reservation is None and not self._reserve(mine):
            assert self._queue, "nobody else has pins, and a batch that fits found no room"
            self._drop(self._queue.pop())
        assert mine.reservation is not None
        claimed = replace(mine.reservation, plan=replace(mine.reservation.plan, batch=batch))
        take_meta(self._store.backend, claimed)
        return claimed

    def clear(self) -> None:
        while self._queue:
            self._drop(self._queue.pop())

    def _reserve(self, one: Announced) -> bool:
        self._number += 1
        reservation = self._store.try_reserve(self._number, one.batch, one.unique)
        if reservation is None:
            return False
        one.reservation = reservation
        self._store.read_misses(reservation)
        return True

    def _drop(self, one: Announced) -> None:
        self.dropped += 1
        if one.reservation is not None:
            self._store.release(one.reservation)


def _bare(batch: BatchIds) -> BatchIds:
    """Without meta columns: those of the forward count, and they are looked at once it has come."""
    return replace(batch, meta=()) if batch.meta else batch
