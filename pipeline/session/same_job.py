"""Whether a config goes on with a run: which of its keys may differ from the run's. Pure.

*Layout* keys change where things lie and how they overlap, never a bit of the result; *continuation* keys say how long the run
goes on and what it writes beside training. Any other key is part of what is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

LAYOUT: Final = (
    "run.dir",
    "run.progress_s",
    "run.background_nice",
    "store.*",
    "replica.*",
    "stages.*.queue.*",
    "stages.prefetch.lookahead",
)
CONTINUATION: Final = ("run.steps", "checkpoint.*", "stages.stream.*", "stages.eval.*")
ABSENT: Final = "(not set)"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys by path whose values differ, with both values; a missing one is ``ABSENT``."""
    old, new = dict(_leaves("", before)), dict(_leaves("", now))
    return {
        key: (old.get(key, ABSENT), new.get(key, ABSENT))
        for key in sorted({*old, *new})
        if old.get(key, ABSENT) != new.get(key, ABSENT)
    }


def identity_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs and may not, as text."""
    free = (*LAYOUT, *CONTINUATION)
    return [
        f"{key} was {old!r} and is {new!r}"
        for key, (old, new) in differences(before, now).items()
        if not any(fnmatchcase(key, pattern) for pattern in free)
    ]


def machine_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The same of what the bits of a run depend on besides its config (``environment.record``)."""
    return [f"{key} was {old!r} and is {new!r}" for key, (old, new) in differences(before, now).items()]


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), inner)
    else:
        yield path, value
