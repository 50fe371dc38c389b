"""The slot machine: the states and pins of L1's slots, decided purely. No row, no tier, no lock and no clock is known
here.

Rules.

1. A slot is FREE, LOADING (bound to a pair whose row is on its way), CLEAN (equal to the tier below, or never
   updated) or DIRTY. FREE -> LOADING -> CLEAN <-> DIRTY, and CLEAN -> FREE. Nothing else.
2. A pin is one batch in flight. Only a CLEAN slot without pins becomes FREE; so a pinned row is never a victim, and a
   DIRTY one has to be cleaned (written back) first. Only a pinned row becomes DIRTY; only one without pins is
   cleaned. A batch's rows become DIRTY as it lets go of them: until then its pins keep them where they are.
3. ``decide`` says, for all rows of a batch or for none, which slots its misses get: free ones first, then victims in
   the order of the policy, never a row the batch itself needs. It changes nothing that matters; ``commit`` carries it
   out.
4. Each change is made for all its slots or for none; a forbidden one raises TransitionError.

Legend: S slots, U distinct rows of a batch, M misses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np

from cuda.host.memory import allocate
from cuda.host.threads import use_threads
from cuda.plan import Int32s, Int64s
from pipeline.store.errors import TransitionError
from pipeline.store.policy import Policy
from pipeline.store.slot_kernels import mark_hits, transition, transition_few
from pipeline.store.victims import VictimQueue

FREE: Final = 0
LOADING: Final = 1
CLEAN: Final = 2
DIRTY: Final = 3
STATE_NAMES: Final = ("FREE", "LOADING", "CLEAN", "DIRTY")
_HELD: Final = 1 << LOADING | 1 << CLEAN | 1 << DIRTY
_KEEP: Final = -1
_ANY: Final = 2**31 - 1
_NO_STEP: Final = -1
FEW: Final = 4096
"""So many slots one thread changes sooner than another could be woken."""
_NO_MISSES: Final = np.empty(0, dtype=np.int64)


class SlotArrays:
    """The arrays of the machine, [S] each: views of one record of 32 bytes per slot, so that a visit costs one cache
    line. ``marks_s`` is scratch: it tells the rows of the batch being decided from others.
    """

    DIRTY: ClassVar[int] = DIRTY
    FIRST_HELD: ClassVar[int] = CLEAN
    """Victims are in this state or above."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        record = allocate(num_slots, 32)
        small, large = record.view(np.int32), record.view(np.int64)
        self.states_s: Int32s = small[:, 0]
        self.pins_s: Int32s = small[:, 1]
        self.uses_s: Int32s = small[:, 2]
        self.marks_s: Int32s = small[:, 3]
        self.last_use_s: Int64s = large[:, 2]
        self.next_use_s: Int64s = large[:, 3]


@dataclass(frozen=True, slots=True)
class Decision:
    """Which slots a batch gets. Void once anything else was committed."""

    step: int
    slots_u: Int32s
    """[U] the slot of each row, hits and misses."""
    misses_m: Int64s
    """[M] positions of the misses in the batch."""
    slots_m: Int32s
    """[M] the slot each miss gets: ``num_free`` free ones, then victims."""
    num_free: int
    dirty_d: Int32s
    """The victims that have to be cleaned before ``commit``."""
    queue_head: int


class SlotMachine:
    """States and pins of ``num_slots`` slots, all FREE at first."""

    few = FEW

    def __init__(
        self, num_slots: int, policy: Policy, before_scan: Callable[[], None] = lambda: None, threads: int = 1
    ) -> None:
        """``before_scan`` is called before all slots are looked at for victims: the time to ``expect``. ``threads``: how
        many one change may use.
        """
        self.arrays = SlotArrays(num_slots)
        self.victims = VictimQueue(self.arrays, policy, before_scan)
        self.now = 0
        """The last step that was committed."""
        self._free = np.arange(num_slots - 1, -1, -1, dtype=np.int32)
        self.num_free = num_slots
        self.num_pinned = 0
        """Slots with pins. Falls on other threads, rises only in ``commit``."""
        self._token = 0
        self._threads = threads
        self._before_m = np.empty(0, dtype=np.int64)

    def decide(self, slots_u: Int32s, step: int) -> Decision | None:
        """Decide for a batch whose rows are in ``slots_u`` (-1: a miss). None: too few slots are without pins."""
        if slots_u.min(initial=0) >= 0:
            return Decision(step, slots_u, _NO_MISSES, slots_u[:0], 0, slots_u[:0], self.victims.head)
        misses_m = np.flatnonzero(slots_u < 0)
        need = int(misses_m.shape[0])
        num_free = min(need, self.num_free)
        slots_m = self._free[self.num_free - num_free : self.num_free][::-1].copy()
        head, dirty_d = self.victims.head, slots_m[:0]
        if need > num_free:
            found = self._find_victims(slots_u, need - num_free)
            if found is None:
                return None
            victims, head = found
            dirty_d = victims[self.arrays.states_s[victims] == DIRTY]
            slots_m = np.concatenate([slots_m, victims])
        all_u = slots_u.copy()
        all_u[misses_m] = slots_m
        return Decision(step, all_u, misses_m, slots_m, num_free, dirty_d, head)

    def _find_victims(self, slots_u: Int32s, count: int) -> tuple[Int32s, int] | None:
        self._token = self._token % _ANY + 1
        idle_hits = mark_hits(slots_u, self.arrays.pins_s, self.arrays.marks_s, self._token)
        if count > self.arrays.num_slots - self.num_free - self.num_pinned - idle_hits:
            return None
        return self.victims.take(count, self._token, self.now)

    def commit(self, decision: Decision) -> None:
        """Free the victims, bind the misses' slots (LOADING), pin all rows of the batch and count their use."""
        arrays, slots_m = self.arrays, decision.slots_m
        if slots_m.shape[0]:
            self._change("evict", slots_m[decision.num_free :], 1 << CLEAN, FREE, 0, 0, 0)
            self._change("bind", slots_m, 1 << FREE, LOADING, 0, 0, 0)
            arrays.uses_s[slots_m] = 0
            arrays.next_use_s[slots_m] = 0
        self.num_pinned += self._change("pin", decision.slots_u, _HELD, _KEEP, 0, _ANY - 1, 1, decision.step)
        self.num_free -= decision.num_free
        self.victims.head = decision.queue_head
        self.now = decision.step

    def renewed(self, decision: Decision) -> Decision:
        """The same decision after others had their turn, who cleaned slots, gave some back or looked for candidates anew. Its
        victims are those it named: they must have stayed held, and without pins.
        """
        free = self._free[self.num_free - decision.num_free : self.num_free][::-1]
        slots_m = np.concatenate([free, decision.slots_m[decision.num_free :]])
        slots_u = decision.slots_u.copy()
        slots_u[decision.misses_m] = slots_m
        return replace(decision, slots_u=slots_u, slots_m=slots_m, dirty_d=slots_m[:0], queue_head=self.victims.head)

    def loaded(self, slots_m: Int32s) -> None:
        """LOADING -> CLEAN: the rows have come."""
        self._change("loaded", slots_m, 1 << LOADING, CLEAN, 1, _ANY, 0)

    def cleaned(self, slots_m: Int32s) -> None:
        """DIRTY -> CLEAN: rows without pins were written back."""
        self._change("clean", slots_m, 1 << DIRTY, CLEAN, 0, 0, 0)

    def give_back(self, slots_m: Int32s) -> None:
        """CLEAN -> FREE: rows without pins were deleted, and no batch takes their slots."""
        self._change("give back", slots_m, 1 << CLEAN, FREE, 0, 0, 0)
        first, count = self.num_free, int(slots_m.shape[0])
        self._free[first : first + count] = slots_m
        self.num_free += count

    def unpin(self, slots_u: Int32s, written: bool = False) -> int:
        """Take one pin from each slot; returns how many have none left. ``written``: the batch wrote its rows, CLEAN or
        DIRTY -> DIRTY.
        """
        if written:
            unpinned = self._change("release", slots_u, 1 << CLEAN | 1 << DIRTY, DIRTY, 1, _ANY, -1)
        else:
            unpinned = self._change("unpin", slots_u, _HELD, _KEEP, 1, _ANY, -1)
        self.num_pinned -= unpinned
        return unpinned

    def expect(self, slots_u: Int32s, step: int) -> None:
        """A queued batch will need these slots' rows (-1: not here) in ``step``."""
        self.arrays.next_use_s[slots_u[slots_u >= 0]] = step

    def counts(self) -> dict[str, int]:
        """How many slots are in each state, and how many are pinned. Looks at every slot."""
        by_state = np.bincount(self.arrays.states_s, minlength=len(STATE_NAMES))
        named = {name.lower(): int(count) for name, count in zip(STATE_NAMES, by_state, strict=True)}
        return named | {"pinned": int(np.count_nonzero(self.arrays.pins_s))}

    def _change(
        self,
        action: str,
        slots: Int32s,
        allowed: int,
        target: int,
        fewest: int,
        most: int,
        delta: int,
        step: int = _NO_STEP,
    ) -> int:
        arrays, count = self.arrays, slots.shape[0]
        if count > self._before_m.shape[0]:
            self._before_m = np.empty(2 * count, dtype=np.int64)
        records = arrays.states_s, arrays.pins_s, arrays.last_use_s, arrays.uses_s
        change = (*records, (allowed, target, fewest, most, delta, step), self._before_m)
        if count <= self.few or self._threads == 1:
            answer = int(transition_few(slots, *change))
        else:
            use_threads(self._threads)
            answer = int(transition(slots, *change, self._threads))
        if answer < 0:
            slot = int(slots[-1 - answer])
            if not 0 <= slot < arrays.num_slots:
                raise TransitionError(action, slot, "no slot", 0)
            raise TransitionError(action, slot, STATE_NAMES[arrays.states_s[slot]], int(arrays.pins_s[slot]))
        return answer
