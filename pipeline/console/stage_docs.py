"""What a stage says of itself, without importing it: importing some of them takes seconds, or an extra that is not installed."""

from __future__ import annotations

import ast
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from pipeline.flow.registry import GROUP, stage_names

NO_SOURCE = "(its source cannot be read)"


def stage_lines() -> list[tuple[str, str]]:
    """(name, first line of its docstring) of every registered stage."""
    values = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    return [(name, _first_line(values[name])) for name in stage_names()]


def _first_line(value: str) -> str:
    module, _, name = value.partition(":")
    path = _source_of(module)
    if path is None:
        return NO_SOURCE
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "(no docstring)").partition("\n")[0]
    return NO_SOURCE


def _source_of(module: str) -> Path | None:
    # Only the top package is looked up: asking for a spec further down would import what lies above it.
    top, *below = module.split(".")
    spec = find_spec(top)
    if spec is None:
        return None
    roots = spec.submodule_search_locations
    files = [Path(root, *below) for root in roots] if roots is not None else [Path(spec.origin or "").with_suffix("")]
    found = (path for file in files for path in (file.with_suffix(".py"), file / "__init__.py"))
    return next((path for path in found if path.is_file()), None)
