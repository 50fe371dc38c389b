"""``stages`` and ``stages NAME``: what can be used, with options, defaults and docs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config.known import alternatives
from pipeline.console.stage_docs import stage_lines
from pipeline.flow.registry import find_stage
from pipeline.flow.runtime_options import RuntimeOptions
from pipeline.flow.stage import Source, Stage

MOST_NESTED = 3


def list_stages() -> int:
    """Print every registered stage with one line of what it does."""
    table = Table("stage", "what it does", box=None, pad_edge=False)
    for name, line in stage_lines():
        table.add_row(Text(name, "bold", no_wrap=True), Text(line))
    console = Console(highlight=False)
    console.print(table)
    console.print(Text("\nstages NAME shows the options of one. A class of your own is named as package.module:Class."))
    return 0


def show_stage(name: str) -> int:
    """Print one stage's contract and options. Raises GraphError when there is no such stage."""
    found = find_stage(name)
    console = Console(highlight=False, soft_wrap=False)
    console.print(Text.assemble((name, "bold"), f"  {found.__module__}:{found.__qualname__}\n"))
    console.print(Text(inspect.getdoc(found) or "(no docstring)"))
    console.print(_contract(found))
    console.print(_options("options", found.Options))
    console.print(_options("options that every stage takes", RuntimeOptions))
    return 0


def _contract(found: type[Stage]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, title_justify="left")
    consumes = "nothing (a source)" if issubclass(found, Source) else found.consumes.__name__
    facts = {
        "consumes": consumes,
        "produces": found.produces.__name__,
        "effects": found.effects,
        "lane": found.lane or "none (on the event loop)",
        "needs": ", ".join(found.needs) or "nothing",
    }
    for fact, value in facts.items():
        table.add_row(Text(fact, "dim"), Text(value))
    return table


def _options(title: str, model: type[BaseModel]) -> Table | Text:
    if not model.model_fields:
        return Text(f"\n{title}: none")
    table = Table("option", "type", "default", "what it is", box=None, pad_edge=False, title_justify="left")
    table.title = Text(f"\n{title}", "not italic")
    for key, field in option_fields(model):
        words = (type_name(field.annotation), default_of(field), field.description or "")
        table.add_row(Text(key, "bold", no_wrap=True), *map(Text, words))
    return table


def option_fields(model: type[BaseModel], above: str = "", depth: int = 0) -> Iterator[tuple[str, FieldInfo]]:
    """The options of a model with their key paths; those of parts behind the part they belong to."""
    for name, field in model.model_fields.items():
        key = f"{above}{field.alias or name}"
        yield key, field
        for inner in alternatives(field.annotation):
            if depth < MOST_NESTED and isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from option_fields(inner, f"{key}.", depth + 1)
            named = get_origin(inner) is dict and get_args(inner)[1]
            if depth < MOST_NESTED and isinstance(named, type) and issubclass(named, BaseModel):
                yield from option_fields(named, f"{key}.NAME.", depth + 1)


def type_name(annotation: Any) -> str:
    """A type as people write it."""
    return " | ".join(dict.fromkeys(_one_name(member) for member in alternatives(annotation)))


def default_of(field: FieldInfo) -> str:
    """The default as it would stand in a config."""
    if field.is_required():
        return "(required)"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "(its own)"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _one_name(member: Any) -> str:
    origin, arguments = get_origin(member), get_args(member)
    if origin is Literal:
        return " | ".join(repr(choice) for choice in arguments)
    if member is type(None):
        return "null"
    if isinstance(member, type) and issubclass(member, BaseModel):
        return "mapping"
    name = getattr(origin or member, "__name__", str(member))
    inside = ", ".join("..." if argument is Ellipsis else type_name(argument) for argument in arguments)
    return f"{name}[{inside}]" if inside else name
