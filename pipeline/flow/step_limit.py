"""``run.steps``: how many steps a run has, and whom to tell when the last one is on its way.

The limit counts steps, not what the source yields: stages between the two may make more or fewer batches of it.
"""

from __future__ import annotations

from collections.abc import Callable


class StepLimit:
    """Resource ``step_limit``. ``stop`` is bound when the runner is there; it may be called on the event loop only."""

    def __init__(self, steps: int | None) -> None:
        self.steps = steps
        self.stop: Callable[[str], None] = lambda _reason: None

    def reached(self, step: int) -> bool:
        """Whether ``step`` is the last one."""
        return self.steps is not None and step >= self.steps
