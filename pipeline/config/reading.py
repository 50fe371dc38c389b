"""YAML text to a tree that knows its lines, and plain values to YAML text.

Plain words mean what YAML 1.2 says: only ``true`` and ``false`` are booleans (``no`` and ``on`` are text), ``1e-3`` is
a number, a date is text. ``1_000_000`` is a number too.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from pipeline.config.errors import ConfigError, Problem
from pipeline.config.tree import Node, Scalar

_PREFIX = "tag:yaml.org,2002:"
_SCALARS = {_PREFIX + kind for kind in ("null", "bool", "int", "float", "str")}
_KNOWN_TAGS = {*_SCALARS, _PREFIX + "seq", _PREFIX + "map"}
_MERGE = _PREFIX + "merge"


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}


def _resolve(kind: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(
        _PREFIX + kind, re.compile(f"(?:{pattern})$"), list(first) + ([""] if kind == "null" else [])
    )


_resolve("null", r"~|null|Null|NULL|", "~nN")
_resolve("bool", r"true|True|TRUE|false|False|FALSE", "tTfF")
_resolve("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+|0o[0-7_]+", "-+0123456789")
_resolve(
    "float",
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "-+0123456789.",
)
_resolve("merge", "<<", "<")


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or 1.2 would take for something else than text."""

    yaml_implicit_resolvers: dict[str, Any] = {
        first: [
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
            *_Loader.yaml_implicit_resolvers.get(first, []),
        ]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
    }


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Line breaks of any kind survive between double quotes only, as escapes.
    return dumper.represent_scalar(_PREFIX + "str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)


def write_yaml(value: Any) -> str:
    """A plain value as one line of YAML, which ``read_yaml`` and other readers of YAML take for the same value."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=2**31, sort_keys=False, allow_unicode=True)
    return text.strip().removesuffix("...").rstrip()


def read_yaml(text: str, origin: str, *, lines: bool = True) -> Node:
    """The tree that ``text`` describes; ``None`` where it is empty. Raises ConfigError with the line.

    With ``lines``, origins are ``origin:line``, else ``origin``.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Node(None, f"{origin}:1" if lines else origin)
        return _Reader(loader, origin, lines).convert(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{origin}:{mark.line + 1}" if lines and mark is not None else origin
        raise ConfigError([Problem(where, (), f"not YAML: {_sentence(error)}")]) from error
    except yaml.YAMLError as error:
        raise ConfigError([Problem(origin, (), f"not YAML: {error}")]) from error


def _sentence(error: yaml.MarkedYAMLError) -> str:
    said = ", ".join(part for part in (error.context, error.problem) if part)
    hint = " (indent with spaces, not with tabs)" if "'\\t'" in said else ""
    return said + hint


class _Reader:
    """Turns YAML nodes into ours."""

    def __init__(self, loader: _Loader, origin: str, lines: bool) -> None:
        self._loader = loader
        self._origin = origin
        self._lines = lines
        self._open: set[int] = set()

    def convert(self, node: yaml.Node) -> Node:
        where = self._where(node)
        if node.tag not in _KNOWN_TAGS:
            what = f"the tag {node.tag!r} means nothing here; text, numbers, true, false, null, lists and mappings do"
            raise ConfigError([Problem(where, (), what)])
        if isinstance(node, yaml.ScalarNode):
            return Node(self._scalar(node), where)
        if id(node) in self._open:
            raise ConfigError([Problem(where, (), "an alias stands inside what it names, which has no end")])
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return Node([self.convert(child) for child in node.value], where)
            assert isinstance(node, yaml.MappingNode)
            return Node(self._mapping(node), where)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        self._refuse_duplicates(node)
        self._loader.flatten_mapping(node)
        children: dict[str, Node] = {}
        for key_node, value_node in node.value:
            child = self.convert(value_node)
            # A key's line says more than that of a block which starts on the next one.
            children[self._name(key_node)] = Node(child.value, self._where(key_node))
        return children

    def _refuse_duplicates(self, node: yaml.MappingNode) -> None:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            name = self._name(key_node)
            if name in lines:
                what = f"the key {name!r} stands here and in line {lines[name]}; one of the two has to go"
                raise ConfigError([Problem(self._where(key_node), (), what)])
            lines[name] = key_node.start_mark.line + 1

    def _name(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return str(node.value)
        raise ConfigError([Problem(self._where(node), (), "a key has to be a word, not a list or a mapping")])

    def _scalar(self, node: yaml.ScalarNode) -> Scalar:
        try:
            value: Scalar = self._loader.construct_object(node)
        except ValueError as error:
            raise ConfigError([Problem(self._where(node), (), f"{node.value!r}: {error}")]) from error
        return value

    def _where(self, node: yaml.Node) -> str:
        return f"{self._origin}:{node.start_mark.line + 1}" if self._lines else self._origin
