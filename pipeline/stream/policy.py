"""When to cut: a pure decision."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

from pipeline.stream.errors import PolicyError

_STEPS = re.compile(r"([0-9]{1,15})\s*steps?")
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s)")


def seconds_of(text: str) -> float:
    """``"25ms"``, ``"1.5 s"``: in seconds. Raises PolicyError, a ValueError."""
    if isinstance(text, str) and (match := _TIME.fullmatch(text.strip())) and float(match[1]) > 0:
        return float(match[1]) / (1000 if match[2] == "ms" else 1)
    raise PolicyError(text, "how long", "a time above zero, such as '25ms' or '1.5s'")


@dataclass(frozen=True, slots=True)
class CutPolicy:
    """Every so many steps, or about every so many seconds in which a step ended. One of the two is None."""

    steps: int | None
    seconds: float | None

    @staticmethod
    def parse(text: str) -> CutPolicy:
        """``"10 steps"``, ``"1 step"``, ``"25ms"``, ``"1.5 s"``. Raises PolicyError, a ValueError."""
        if isinstance(text, str):
            if (match := _STEPS.fullmatch(text.strip())) and int(match[1]) > 0:
                return CutPolicy(int(match[1]), None)
            with suppress(PolicyError):
                return CutPolicy(None, seconds_of(text))
        raise PolicyError(text)

    def is_due(self, steps_waiting: int, waited_s: float, at_step_end: bool) -> bool:
        """Whether to cut, ``steps_waiting`` steps and ``waited_s`` seconds after the cut before.

        A timed cut is taken where a step has just ended (``at_step_end``): nothing is fresher there, and the next step ends
        long after its rows were read. It waits as long again for that, no longer: a source may be idle.
        """
        if self.steps is not None:
            return steps_waiting >= self.steps
        assert self.seconds is not None
        return steps_waiting > 0 and waited_s >= (self.seconds if at_step_end else 2 * self.seconds)

    def due_in_s(self, waited_s: float) -> tuple[float, float | None]:
        """(Seconds until a step's end makes a cut due, seconds until time alone does, None: never)."""
        if self.seconds is None:
            return 0.0, None
        return max(0.0, self.seconds - waited_s), max(0.0, 2 * self.seconds - waited_s)

    def __str__(self) -> str:
        if self.steps is not None:
            return f"{self.steps} steps"
        assert self.seconds is not None
        return f"{self.seconds * 1000:g}ms"
