"""Finds a stage's class by its registered name (entry point group ``rowstream.stages``) or as
``package.module:Class``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from pipeline.flow.errors import GraphError
from pipeline.flow.nearest import listed, nearest
from pipeline.flow.stage import Stage

GROUP = "rowstream.stages"


def stage_names() -> list[str]:
    """All registered names, sorted. Imports none of the stages."""
    return sorted(_entries())


def find_stage(use: str) -> type[Stage]:
    """The class that ``use`` names. Raises GraphError when there is none, or when it is no stage."""
    return _check_class(use, _load_path(use) if ":" in use else _load_name(use))


def _entries() -> Mapping[str, tuple[EntryPoint, ...]]:
    return _entries_of(tuple(sys.path))


@lru_cache(maxsize=4)
def _entries_of(_path: tuple[str, ...]) -> Mapping[str, tuple[EntryPoint, ...]]:
    # One scan reads the metadata of every installed distribution, so it is kept as long as the path is the same.
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=GROUP):
        others = found.get(entry.name, ())
        if all(other.value != entry.value for other in others):
            found[entry.name] = (*others, entry)
    return found


def _load_name(use: str) -> Any:
    entries = _entries()
    if use not in entries:
        raise GraphError(
            f"no stage is named {use!r}{nearest(use, entries)} Registered: {listed(entries)}. "
            "A class of your own is named as package.module:Class"
        )
    if len(entries[use]) > 1:
        raise GraphError(
            f"two stages are named {use!r}: {listed(e.value for e in entries[use])}. Name one as package.module:Class"
        )
    return _load_path(entries[use][0].value)


def _load_path(use: str) -> Any:
    module_name, _, class_name = use.partition(":")
    if not module_name or not class_name:
        raise GraphError(f"{use!r} names no class; a class is named as package.module:Class")
    found: Any = _import(use, module_name)
    for part in class_name.split("."):
        if not hasattr(found, part):
            stages = _stages_of(found)
            raise GraphError(
                f"{use!r}: no {part!r} in {module_name!r}{nearest(part, stages)} Stages there: {listed(stages)}"
            )
        found = getattr(found, part)
    return found


def _import(use: str, module_name: str) -> ModuleType:
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise GraphError(f"{use!r}: there is no module {error.name!r} on the import path") from error
        raise GraphError(f"{use!r}: importing {module_name!r} needs {error.name!r}, which is not installed") from error
    except Exception as error:
        raise GraphError(f"{use!r}: importing {module_name!r} failed: {type(error).__name__}: {error}") from error


def _stages_of(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, Stage)]


def _check_class(use: str, found: Any) -> type[Stage]:
    if isinstance(found, type) and issubclass(found, Stage):
        return found
    what = f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
    raise GraphError(f"{use!r} is {what}; a stage is a subclass of pipeline.flow.Stage")
