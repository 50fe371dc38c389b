"""Config files, what they include, and overrides, composed into one tree.

Rules.

1. What comes later wins: files in the order given, then overrides in the order given.
2. ``include: NAME`` or ``include: [NAME, ...]`` at the top of a file lays those files below its own keys, in that order.
   A name is relative to the file that includes it, or one of the shipped configs.
3. A file that includes itself, however far round, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.config.errors import ConfigError, Problem
from pipeline.config.finding import display, find_file, not_found
from pipeline.config.keys import Key, parse_key
from pipeline.config.reading import read_yaml
from pipeline.config.tree import OVERRIDE, Node, merge, merge_at

INCLUDE = "include"


def compose(sources: Sequence[str], overrides: Sequence[str]) -> Node:
    """The tree that ``sources`` and ``overrides`` make. Raises ConfigError with everything that is wrong."""
    composer = _Composer()
    tree = Node({}, "")
    for name in sources:
        tree = merge(tree, composer.source(name, Path.cwd(), "", ()))
    for text in overrides:
        tree = composer.override(tree, text)
    if composer.problems:
        raise ConfigError(composer.problems)
    return tree


class _Composer:
    """Reads on after a problem, so that one look mends everything."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def source(self, name: str, beside: Path, where: str, including: tuple[Path, ...]) -> Node:
        """The tree of one file, its includes below it; ``including`` are the files on the way here."""
        path = find_file(name, beside)
        if path is None:
            return self._refuse(where, not_found(name, beside))
        path = path.resolve()
        if path in including:
            ring = " -> ".join(display(file) for file in (*including[including.index(path) :], path))
            return self._refuse(where, f"the files include each other without end: {ring}")
        try:
            own = read_yaml(path.read_text(encoding="utf-8"), display(path))
        except ConfigError as error:
            self.problems += error.problems
            return Node({}, where)
        except (OSError, UnicodeDecodeError) as error:
            return self._refuse(where, f"{display(path)} cannot be read: {error}")
        return self._with_includes(own, path, including)

    def override(self, tree: Node, text: str) -> Node:
        """``tree`` with ``key=value`` laid on it."""
        name, equals, value = text.partition("=")
        try:
            if not equals:
                raise ValueError(f"{text!r} has no '='; an override reads like store.l1_rows=100000")
            return merge_at(tree, parse_key(name.strip()), _override_value(value))
        except (ValueError, IndexError) as error:
            self._refuse(f"{OVERRIDE} {text!r}", str(error))
        except ConfigError as error:
            self._refuse(f"{OVERRIDE} {text!r}", "; ".join(problem.what for problem in error.problems))
        return tree

    def _with_includes(self, own: Node, path: Path, including: tuple[Path, ...]) -> Node:
        if own.value is None:
            return Node({}, own.origin)
        if not isinstance(own.value, dict):
            return self._refuse(own.origin, f"a config is a mapping of keys, found {type(own.value).__name__}")
        children = dict(own.value)
        tree = Node({}, own.origin)
        for included in self._names(children.pop(INCLUDE, None)):
            tree = merge(tree, self.source(str(included.value), path.parent, included.origin, (*including, path)))
        return merge(tree, Node(children, own.origin))

    def _names(self, include: Node | None) -> list[Node]:
        if include is None or include.value is None:
            return []
        names = include.value if isinstance(include.value, list) else [include]
        if all(isinstance(name.value, str) for name in names):
            return names
        self._refuse(include.origin, f"found {include.plain()!r}; a name or a list of names would do", (INCLUDE,))
        return []

    def _refuse(self, where: str, what: str, key: Key = ()) -> Node:
        self.problems.append(Problem(where, key, what))
        return Node({}, where)


def _override_value(text: str) -> Node:
    """YAML, or else plain text, so that ``separator=,`` and ``files=*.csv`` mean what they say."""
    if text and not text.strip():
        return Node(text, OVERRIDE)
    try:
        return read_yaml(text, OVERRIDE, lines=False)
    except ConfigError:
        if text.lstrip()[0] in "[{\"'":
            raise
        return Node(text, OVERRIDE)
