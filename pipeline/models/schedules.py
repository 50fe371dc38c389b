"""Schedules: pure functions of the step's number (from 1) that say what the learning rate is multiplied with.

A schedule keeps no state, so a resumed run needs none: the factor of step s is the same whenever it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.models.errors import ModelError
from pipeline.models.names import check_keywords, load_named

Schedule = Callable[[int], float]


def constant(step: int) -> float:
    """Always 1."""
    del step
    return 1.0


def linear(step: int, *, steps: int, final: float = 0.0) -> float:
    """From 1 at step 0 straight to ``final`` at step ``steps``, and ``final`` from there on."""
    return 1.0 + (final - 1.0) * _progress(step, steps)


def cosine(step: int, *, steps: int, final: float = 0.0) -> float:
    """Half a cosine from 1 at step 0 to ``final`` at step ``steps``, and ``final`` from there on."""
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * _progress(step, steps)))


def step_decay(step: int, *, every: int, factor: float = 0.5) -> float:
    """Multiplied with ``factor`` after every ``every`` steps: steps 1 .. every have 1."""
    if every < 1:
        raise ModelError(f"schedule step: every is {every}; it is at least 1")
    return float(factor ** ((step - 1) // every))


SCHEDULES: Final[Mapping[str, Callable[..., float]]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "step": step_decay,
}


def check_schedule(use: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown name, and options a built-in schedule does not take.

    A user's function is checked when it is built.
    """
    if use in SCHEDULES:
        check_keywords(f"schedule {use}", SCHEDULES[use], options, ("step",))
        try:
            SCHEDULES[use](1, **options)
        except TypeError as error:
            raise ModelError(f"schedule {use}: {dict(options)}: {error}; numbers were expected") from error
    elif ":" not in use:
        load_named("schedule", use, SCHEDULES)


def build_schedule(use: str, options: Mapping[str, Any], warmup_steps: int = 0) -> Schedule:
    """The factor as a function of the step alone. Raises ModelError for names and options that do not exist."""
    call = SCHEDULES[use] if use in SCHEDULES else load_named("schedule", use, SCHEDULES)
    if not callable(call):
        raise ModelError(f"schedule {use!r} is {type(call).__name__}; a function of the step was expected")
    check_keywords(f"schedule {use}", call, options, ("step",))

    def factor(step: int) -> float:
        value = float(call(step, **options)) * warmup(step, warmup_steps)
        if not math.isfinite(value):
            raise ModelError(f"schedule {use!r} gives {value} at step {step}; a finite number was expected")
        return value

    return factor


def warmup(step: int, steps: int) -> float:
    """``step / steps`` up to step ``steps``, then 1."""
    return 1.0 if step >= steps else step / steps


def _progress(step: int, steps: int) -> float:
    if steps < 1:
        raise ModelError(f"schedule: steps is {steps}; it is at least 1")
    return min(max(step / steps, 0.0), 1.0)
