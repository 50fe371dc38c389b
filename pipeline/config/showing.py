"""The effective config as text: YAML that can be read again, with the origin of each value as a comment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.config.keys import Key
from pipeline.config.reading import write_yaml
from pipeline.config.tree import Origins

INDENT = "  "
COMMENT_COLUMN_MAX = 60


def show(tree: dict[str, Any], origins: Origins) -> str:
    """One line for each value."""
    lines = list(_lines(tree, (), origins))
    column = min(max((len(text) for text, _ in lines), default=0), COMMENT_COLUMN_MAX)
    return "\n".join(f"{text:<{column}}  # {origin}" if origin else text for text, origin in lines)


def _lines(tree: dict[str, Any], above: Key, origins: Origins) -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        key = (*above, name)
        start = INDENT * len(above) + write_yaml(name) + ":"
        if isinstance(value, dict) and value:
            yield start, ""
            yield from _lines(value, key, origins)
        else:
            yield f"{start} {write_yaml(value)}", origins.of(key)
