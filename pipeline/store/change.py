"""How far each step moved its rows, for those who ask: on the compute lane, inside the fence. Until somebody asks, it costs nothing."""

from __future__ import annotations

from collections.abc import Sequence

from cuda.backend import Backend, UpdateRule
from cuda.plan import Float32s, Int64s, Matrix, SlotPlan


class Changes:
    """Stands between the store and the update of ``backend``. ``wanted`` is set before the first batch; it changes no bit of a row."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.wanted = False
        self._plan: SlotPlan | None = None
        self._changes_u: Float32s | None = None

    def update(
        self, plan: SlotPlan, grads: Sequence[Matrix | None], rules: Sequence[UpdateRule], version: int
    ) -> Int64s:
        """``Backend.update``; ``of`` knows afterwards how far it moved each row."""
        if not self.wanted:
            return self._backend.update(plan, grads, rules, version)
        kept_ud = self._backend.keep_weights(plan)
        bad_t = self._backend.update(plan, grads, rules, version)
        self._changes_u, self._plan = self._backend.relative_change(plan, kept_ud), plan
        return bad_t

    def of(self, plan: SlotPlan) -> Float32s | None:
        """For listeners of the step that has just ended: ``Backend.relative_change`` of each distinct row of its plan, [U].

        None where it is not known: the step was no update, but a load, or nobody had asked for it.
        """
        return self._changes_u if plan is self._plan else None
