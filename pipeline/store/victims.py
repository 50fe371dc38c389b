"""The victim queue: the next rows to leave L1, lowest score first, made by one scan and used up over many batches.

Entries are checked when they are taken: one that was pinned or used since the scan is passed over. Nothing here
locks; the store calls it under the residency lock, beside which pins only fall.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from pipeline.store.policy import Policy, SlotUse
from pipeline.store.slot_kernels import find_in_state, select_lowest, take_victims

if TYPE_CHECKING:
    from cuda.plan import Int32s, Int64s
    from pipeline.store.slots import SlotArrays

SCAN_SHARE: Final = 16
"""A scan looks at every slot, and yields at least one in so many as candidates."""


def _order(scores_q: Int64s) -> npt.NDArray[np.intp]:
    """As ``argsort``, stable. Scores that lie near each other, as steps do, are sorted as 16 bits: without comparisons."""
    if scores_q.shape[0]:
        low, high = int(scores_q.min()), int(scores_q.max())
        if high - low < 1 << 16:
            return np.argsort((scores_q - low).astype(np.uint16), kind="stable")
    return np.argsort(scores_q, kind="stable")


class VictimQueue:
    """Candidates in the order of ``policy``. ``head`` is the next; the caller moves it when a decision is carried
    out.
    """

    def __init__(self, slots: SlotArrays, policy: Policy, before_scan: Callable[[], None]) -> None:
        self._slots, self._policy, self._before_scan = slots, policy, before_scan
        self._use = SlotUse(slots.last_use_s, slots.uses_s, slots.next_use_s)
        self._queue_q = np.empty(0, dtype=np.int32)
        self._last_use_q = np.empty(0, dtype=np.int64)
        self._next_use_q = np.empty(0, dtype=np.int64)
        self._cleaned = 0
        self.head = 0

    def __len__(self) -> int:
        return int(self._queue_q.shape[0]) - self.head

    def take(self, need: int, token: int, now: int) -> tuple[Int32s, int] | None:
        """``need`` distinct victims that do not carry the mark ``token``, and the head behind them; None when there
        are fewer.
        """
        found = self._take(need, token)
        if found is None:
            self.refill(need, now, token)
            found = self._take(need, token)
        return found

    def _take(self, need: int, token: int) -> tuple[Int32s, int] | None:
        slots, out = self._slots, np.empty(need, dtype=np.int32)
        queue = self._queue_q, self._last_use_q, self._next_use_q, self.head
        arrays = slots.states_s, slots.pins_s, slots.last_use_s, slots.next_use_s, slots.marks_s
        head, found = take_victims(*queue, *arrays, token, slots.FIRST_HELD, out)
        return (out, int(head)) if found == need else None

    def refill(self, need: int, now: int, token: int | None = None) -> None:
        """Scan all slots again. ``need``: how many the caller is after, besides those it has marked with ``token``."""
        self._before_scan()
        slots = self._slots
        marked = 0 if token is None else int(np.count_nonzero(slots.marks_s == token))
        self.install(self.scan(need + marked, now))

    def scan(self, want: int, now: int) -> Int32s:
        """At least ``want`` candidates for ``install``. Changes nothing, so slots may change meanwhile: what is taken from the
        queue is looked at again.
        """
        slots = self._slots
        want = max(want, slots.num_slots // SCAN_SHARE)
        scores_s = np.ascontiguousarray(self._policy.scores(self._use, now), dtype=np.int64)
        queue_q = select_lowest(scores_s, slots.states_s, slots.pins_s, slots.FIRST_HELD, want)
        order: Int32s = queue_q[_order(scores_s[queue_q])]
        return order

    def install(self, queue_q: Int32s) -> None:
        """These are the next victims."""
        self._queue_q = queue_q
        self._last_use_q, self._next_use_q = self._slots.last_use_s[queue_q], self._slots.next_use_s[queue_q]
        self.head = self._cleaned = 0

    def dirty(self, window: int, limit: int) -> Int32s:
        """At most ``limit`` dirty unpinned slots among the next ``window`` candidates; each candidate is looked at
        once.
        """
        slots, out = self._slots, np.empty(limit, dtype=np.int32)
        start, stop = max(self._cleaned, self.head), min(self.head + window, int(self._queue_q.shape[0]))
        self._cleaned, found = find_in_state(self._queue_q, start, stop, slots.states_s, slots.pins_s, slots.DIRTY, out)
        return out[:found]
