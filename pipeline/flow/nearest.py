"""What a misspelt name was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """How a sentence on an unknown name ends: ``; did you mean 'x'?``, or a full stop when none is near."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else "."


def listed(names: Iterable[str]) -> str:
    """The names, sorted, for a message; ``none`` when there are none."""
    return ", ".join(sorted(names)) or "none"
