"""A config as a tree of values that know where they come from, and how two trees merge. Pure.

Rules of merging.

1. The later one wins.
2. Two mappings merge key by key, at every depth.
3. Everything else is replaced whole: lists too.
4. Keys keep their order. A new key stands right behind the one it follows in the later tree, and last if it follows none: so a
   stage can be put between two others by a file that names the one before it (``source: {}``) and then the new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.keys import Key

DEFAULT = "default"
OVERRIDE = "override"

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its origin: ``file:line`` or ``override``. Never changed once made."""

    value: dict[str, Node] | list[Node] | Scalar
    origin: str

    def plain(self) -> Any:
        """The value without origins, as new dicts and lists."""
        if isinstance(self.value, dict):
            return {name: child.plain() for name, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def walk(self, key: Key = ()) -> Iterator[tuple[Key, Node]]:
        """This node and all below it, with their key paths."""
        yield key, self
        if isinstance(self.value, dict):
            for name, child in self.value.items():
                yield from child.walk((*key, name))
        elif isinstance(self.value, list):
            for index, child in enumerate(self.value):
                yield from child.walk((*key, index))


def node_of(value: Any, origin: str) -> Node:
    """A plain value as a tree, all of one origin."""
    if isinstance(value, Mapping):
        return Node({str(name): node_of(child, origin) for name, child in value.items()}, origin)
    if isinstance(value, list | tuple):
        return Node([node_of(child, origin) for child in value], origin)
    return Node(value, origin)


def merge(base: Node, over: Node) -> Node:
    """``over`` laid on ``base``."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    merged = {**base.value, **over.value}
    for name in base.value.keys() & over.value.keys():
        merged[name] = merge(base.value[name], over.value[name])
    return Node({name: merged[name] for name in _order(list(base.value), list(over.value))}, over.origin)


def _order(base: list[str], over: list[str]) -> list[str]:
    order, last = list(base), None
    for name in over:
        if name not in base:
            order.insert(len(order) if last is None else order.index(last) + 1, name)
        last = name
    return order


def merge_at(tree: Node, key: Key, over: Node) -> Node:
    """``over`` laid on what stands at ``key``; mappings on the way are made where there are none.

    Raises IndexError, with a sentence, when the key goes into a list beside its elements.
    """
    if not key:
        return merge(tree, over)
    part, rest = key[0], key[1:]
    if isinstance(tree.value, list):
        elements = list(tree.value)
        index = _index(part, len(elements))
        elements[index] = merge_at(elements[index], rest, over)
        return Node(elements, tree.origin)
    children = dict(tree.value) if isinstance(tree.value, dict) else {}
    name = str(part)
    children[name] = merge_at(children.get(name, Node({} if rest else None, over.origin)), rest, over)
    return Node(children, tree.origin if isinstance(tree.value, dict) else over.origin)


def _index(part: str | int, length: int) -> int:
    if not str(part).isdecimal() or int(part) >= length:
        raise IndexError(f"a list of {length} stands here and {part!r} is none of its elements (they count from 0)")
    return int(part)


class Origins:
    """Where each value of a tree comes from."""

    def __init__(self, by_key: Mapping[Key, str]) -> None:
        self._by_key = dict(by_key)

    @classmethod
    def of_tree(cls, tree: Node) -> Origins:
        return cls({key: node.origin for key, node in tree.walk()})

    def of(self, key: Key) -> str:
        """``file:line`` or ``override`` of what stands at ``key``; ``default`` when nobody set it."""
        return self._by_key.get(key, DEFAULT)

    def resolve(self, key: Key) -> Key:
        """``key`` with numbers as indices wherever a list stands."""
        found: Key = ()
        for part in key:
            indexed = (*found, int(part)) if str(part).isdecimal() else ()
            found = indexed if indexed in self._by_key and indexed else (*found, part)
        return found

    def nearest(self, key: Key) -> str:
        """The origin of ``key``, or of what it would stand in; empty when nothing is known."""
        while key not in self._by_key and key:
            key = key[:-1]
        return self._by_key.get(key, "")
