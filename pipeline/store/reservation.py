"""A batch's claim on L1."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from cuda.plan import Int32s, Int64s, RowMeta, SlotPlan


@dataclass(eq=False, slots=True)
class Reservation:
    """Slots for all distinct rows of one batch, pinned from ``try_reserve`` to ``release``.

    ``loaded`` says that the rows are there; ``written`` that an update began; ``released`` that the pins are gone.
    Only the store changes them.
    """

    step: int
    plan: SlotPlan
    misses_m: Int64s
    """[M] which of the batch's rows were not in L1."""
    slots_m: Int32s
    """[M] the slots those rows come to."""
    loaded: bool = False
    written: bool = False
    released: bool = False
    reading: SlotPlan | None = None
    """What lookups read, where it is more than ``plan``: ids without a row too, in their table's default slot."""
    meta: tuple[RowMeta, ...] = ()
    """What the update writes into meta columns."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the rows are read."""

    @property
    def num_misses(self) -> int:
        return int(self.misses_m.shape[0])

    def check_held(self, action: str) -> None:
        if self.released:
            raise RuntimeError(f"{action}: the rows of step {self.step} were released already")
