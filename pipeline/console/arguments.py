"""Words of a command line to values."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.config import shipped_names

OVERRIDE = re.compile(r"[A-Za-z_\[][^=/\\]*=", re.ASCII)
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class UsageError(Exception):
    """The command line cannot be understood."""

    exit_code = 2


def split_config(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(files, overrides) of ``CONFIG... [key=value ...]``, in any order. Raises UsageError when no file is among them."""
    overrides = [argument for argument in arguments if OVERRIDE.match(argument)]
    sources = [argument for argument in arguments if not OVERRIDE.match(argument)]
    if not sources:
        shipped = ", ".join(shipped_names()) or "none"
        raise UsageError(f"name a config: a YAML file, or one of those that are shipped: {shipped}")
    return sources, overrides


def parse_ids(words: Sequence[str]) -> list[int]:
    """Ids, parted by spaces or commas. Any int64 is an id, -1 included. Raises UsageError."""
    ids = []
    for word in (part for text in words for part in text.split(",") if part.strip()):
        try:
            number = int(word)
        except ValueError:
            raise UsageError(f"{word!r} is neither an option nor an id; an id is a whole number") from None
        if not INT64_MIN <= number <= INT64_MAX:
            raise UsageError(f"{word} is no id: ids go from {INT64_MIN} to {INT64_MAX}")
        ids.append(number)
    if not ids:
        raise UsageError("name some ids: --ids 1 2 3")
    return ids
