"""Whether a config goes on with a run: which of its keys may differ from the run's, and which of them were accepted. Pure.

*Layout* keys change where things lie and how they overlap, never a bit of the result; *continuation* keys say how the run goes on
and what it writes beside training. Any other key, and what the machine is (``machine.*``), is part of what is computed: a difference is
refused, or accepted by name, which makes a fork. What rows are before their first update cannot change within a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

LAYOUT: Final = (
    "run.dir",
    "run.progress_s",
    "run.background_nice",
    "store.*",
    "tables.*.max_rows",
    "replica.*",
    "stages.*.queue.*",
    "stages.prefetch.lookahead",
)
CONTINUATION: Final = (
    "run.steps",
    "checkpoint.*",
    "hooks",
    "hooks.*",
    "dense_optimizer.schedule.*",
    "tables.*.schedule.*",
    "stages.stream.*",
    "stages.eval.*",
)
APPENDED: Final = "stages.*.paths"
"""Continuation too, where the list only grew at its end. The source itself checks the files that were read."""
FIXED: Final = (
    "run.seed",
    "tables.*.dim",
    "tables.*.weights",
    "tables.*.identities",
    "tables.*.metadata*",
    "tables.*.init.*",
    "tables.*.admission*",
    "tables.*.expiry*",
)
PROOF: Final = "proof"
"""Accepted like a key: that the resumed run comes to other rows than those it had published."""
ABSENT: Final = "(not set)"


@dataclass(frozen=True, slots=True)
class Difference:
    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.was!r} and is {self.now!r}"

    def is_named_by(self, name: str) -> bool:
        """``name`` is the key, or one above it."""
        return self.key == name or self.key.startswith(f"{name}.")


@dataclass(frozen=True, slots=True)
class Judgement:
    """``needless``: names that accept nothing that differs. ``fixed``: what differs and cannot be accepted."""

    accepted: Sequence[Difference]
    refused: Sequence[Difference]
    fixed: Sequence[Difference]
    needless: Sequence[str]


def judge(differs: Sequence[Difference], accept: Sequence[str]) -> Judgement:
    """What ``accept`` makes of the differences between two jobs."""
    fixed = [one for one in differs if _matches(one.key, FIXED)]
    open_to = [one for one in differs if one not in fixed]
    accepted = [one for one in open_to if any(map(one.is_named_by, accept))]
    needless = [name for name in accept if name != PROOF and not any(one.is_named_by(name) for one in differs)]
    return Judgement(accepted, [one for one in open_to if one not in accepted], fixed, needless)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], under: str = "") -> list[Difference]:
    """Keys by path, below ``under``, whose values differ, with both values; a missing one is ``ABSENT``."""
    old, new = dict(_leaves(under, before)), dict(_leaves(under, now))
    found = [Difference(key, old.get(key, ABSENT), new.get(key, ABSENT)) for key in sorted({*old, *new})]
    return [one for one in found if one.was != one.now]


def identity_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """What differs between two configs and may not."""
    return [
        one
        for one in differences(before, now)
        if not _matches(one.key, (*LAYOUT, *CONTINUATION)) and not _appended(one)
    ]


def machine_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """The same of what the bits of a run depend on besides its config (``environment.record``)."""
    return [one for one in differences(before, now, "machine") if one.key != "machine.threads"]  # it is run.threads


def _appended(one: Difference) -> bool:
    was, now = ([paths] if isinstance(paths, str) else paths for paths in (one.was, one.now))
    return fnmatchcase(one.key, APPENDED) and ABSENT not in (one.was, one.now) and now[: len(was)] == was


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), inner)
    else:
        yield path, value
