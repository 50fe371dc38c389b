"""``${...}`` in a composed tree, resolved by OmegaConf: ``${run.seed}``, ``${oc.env:NAME,default}``."""

from __future__ import annotations

from typing import Any

from pipeline.config.errors import ConfigError, Problem
from pipeline.config.keys import Key
from pipeline.config.tree import Node, node_of

MARK = "${"


def interpolate(tree: Node) -> Node:
    """The tree with every interpolation replaced by its value, which keeps the origin of the text it replaces.

    Raises ConfigError with all that cannot be resolved.
    """
    if not any(_is_interpolated(node) for _, node in tree.walk()):
        return tree
    from omegaconf import OmegaConf

    _refuse_malformed(tree)
    config = OmegaConf.create(tree.plain())
    problems: list[Problem] = []
    resolved = _replace(tree, (), config, problems)
    if problems:
        raise ConfigError(problems)
    return resolved


def _is_interpolated(node: Node) -> bool:
    return isinstance(node.value, str) and MARK in node.value


def _refuse_malformed(tree: Node) -> None:
    # OmegaConf takes no tree with one such text in it, and would name one of them only.
    from omegaconf import OmegaConf
    from omegaconf.errors import GrammarParseError

    problems = []
    for key, node in tree.walk():
        if _is_interpolated(node):
            try:
                OmegaConf.create([node.value])
            except GrammarParseError as error:
                what = f"{node.value!r} is no interpolation: {_first_line(error)}; one reads like ${{run.seed}}"
                problems.append(Problem(node.origin, key, what))
    if problems:
        raise ConfigError(problems)


def _replace(node: Node, key: Key, config: Any, problems: list[Problem]) -> Node:
    if isinstance(node.value, dict):
        children = {name: _replace(child, (*key, name), config, problems) for name, child in node.value.items()}
        return Node(children, node.origin)
    if isinstance(node.value, list):
        return Node([_replace(child, (*key, i), config, problems) for i, child in enumerate(node.value)], node.origin)
    if _is_interpolated(node):
        return _resolve(node, key, config, problems)
    return node


def _resolve(node: Node, key: Key, config: Any, problems: list[Problem]) -> Node:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = config
        for part in key:
            found = found[part]
        return node_of(
            OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found, node.origin
        )
    except OmegaConfBaseException as error:
        problems.append(Problem(node.origin, key, f"{node.value!r} cannot be resolved: {_first_line(error)}"))
    except RecursionError:
        problems.append(Problem(node.origin, key, f"{node.value!r} cannot be resolved: it leads back to itself"))
    return node


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
