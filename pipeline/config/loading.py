"""The whole way: files and overrides -> tree -> validated settings that know where each value came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from pipeline.config.composing import INCLUDE, compose
from pipeline.config.errors import ConfigError, Problem
from pipeline.config.faults import validate_part
from pipeline.config.interpolation import interpolate
from pipeline.config.keys import Key, parse_key
from pipeline.config.showing import show
from pipeline.config.tree import Origins

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[M]):
    """A config that is valid. ``tree`` is the effective one: composed, resolved, defaults filled in, plain values."""

    settings: M
    tree: dict[str, Any]
    origins: Origins

    def origin(self, path: str) -> str:
        """Who set the key ``path``: ``file:line``, ``override``, or ``default``."""
        return self.origins.of(self._key(path))

    def describe(self) -> str:
        """The effective config as YAML, with the origin of each value behind it."""
        return show(self.tree, self.origins)

    def error(self, problems: Iterable[tuple[str, str]]) -> ConfigError:
        """A ConfigError for what somebody else found wrong: (key path, what) pairs."""
        keys = [(self._key(path), what) for path, what in problems]
        return ConfigError([Problem(self.origins.nearest(key), key, what) for key, what in keys])

    def _key(self, path: str) -> Key:
        try:
            return self.origins.resolve(parse_key(path))
        except ValueError:
            # Somebody's own idea of a path, or none: it is shown as it is.
            return (path,) if path else ()


def load(sources: Sequence[str], overrides: Sequence[str], model: type[M]) -> Loaded[M]:
    """Compose, resolve and validate. ``sources``: files or names of shipped configs; ``overrides``: ``key=value``.

    Raises ConfigError with everything that is wrong.
    """
    tree = interpolate(compose(sources, overrides))
    origins = Origins.of_tree(tree)
    settings = validate_part(model, tree.plain(), "", origins)
    return Loaded(settings, settings.model_dump(mode="json"), origins)


def schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a config file. Nothing is required, since a file may be one part of several."""
    described = model.model_json_schema()
    for part in (described, *described.get("$defs", {}).values()):
        part.pop("required", None)
    names = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    described["properties"] = {
        INCLUDE: {**names, "description": "configs laid below this one"},
        **described["properties"],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}
