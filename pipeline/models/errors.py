"""What can be wrong with the dense side. Every error names the key and what would have worked."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ModelError(ValueError):
    """A model, optimizer, schedule or saved state that cannot be used as asked."""

    exit_code = 2


class UnknownName(ModelError):
    """A name that is not among the known ones: the nearest is suggested."""

    def __init__(self, what: str, found: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(found, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        super().__init__(f"{what} {found!r} is not known{hint} Known: {', '.join(names) if names else 'none'}")


class StateMismatch(ModelError):
    """A saved state does not belong to this model or optimizer."""

    exit_code = 1
