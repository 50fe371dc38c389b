"""pydantic's errors, said in words of the config: origin, key path, what was found, what would have worked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.errors import ConfigError, Problem
from pipeline.config.keys import Key, parse_key
from pipeline.config.known import fields_of, find_key, narrow, nearest, step_into
from pipeline.config.tree import Origins

M = TypeVar("M", bound=BaseModel)
SHOWN_CHARS = 60


def validate_part(model: type[M], tree: Any, path: str, origins: Origins) -> M:
    """The part of a config at key path ``path`` (empty: the whole), validated.

    ``tree`` is that part alone, with plain values. Raises ConfigError with all problems, each at its full key path.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        above = parse_key(path) if path else ()
        raise ConfigError(_together(_problems(error, model, tree, above, origins))) from error


def _problems(
    error: ValidationError, model: type[BaseModel], tree: Any, above: Key, origins: Origins
) -> Iterator[Problem]:
    for fault in error.errors(include_url=False):
        inside, types = _place(fault, model, tree)
        key = (*above, *inside)
        yield Problem(origins.nearest(key), key, _sentence(fault, model, inside, types))


def _place(fault: ErrorDetails, model: type[BaseModel], tree: Any) -> tuple[Key, list[Any]]:
    """The key path inside ``tree`` that a pydantic location means, and the types known where its last key stands.

    A location also holds tags of unions and the like, which no key in the tree corresponds to.
    """
    key: Key = ()
    types: list[Any] = [model]
    holders: list[Any] = [model]
    missing = fault["type"] == "missing"
    for position, part in enumerate(fault["loc"]):
        here = isinstance(tree, Mapping) and part in tree
        there = isinstance(tree, list) and isinstance(part, int) and part < len(tree)
        if here or there:
            tree = tree[part]
        elif not (missing and position == len(fault["loc"]) - 1):
            types = narrow(types, part)
            continue
        key, holders, types = (*key, part), types, step_into(types, part)
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        key, holders = (*key, _discriminator(fault)), types
    return key, holders


def _sentence(fault: ErrorDetails, model: type[BaseModel], key: Key, holders: list[Any]) -> str:
    last = str(key[-1]) if key else ""
    field = fields_of(holders).get(last)
    about = f" ({last}: {field.description})" if field is not None and field.description else ""
    if fault["type"] == "extra_forbidden":
        return _unknown(last, model, holders)
    if fault["type"] in ("missing", "union_tag_not_found"):
        choices = f"; one of {_tags(fault, holders)}" if fault["type"] == "union_tag_not_found" else ""
        return f"the key is missing{choices}{about}"
    if fault["type"] == "union_tag_invalid":
        tag, choices = fault["ctx"]["tag"], fault["ctx"]["expected_tags"]
        return f"found {_shown(tag)}{_meant(tag, choices)}; one of {choices} would do"
    wanted = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("Input should ")
    if fault["type"] in ("value_error", "assertion_error"):
        return f"{wanted}{about}"
    meant = _meant(fault["input"], fault["ctx"]["expected"]) if fault["type"] in ("literal_error", "enum") else ""
    return f"found {_shown(fault['input'])}{meant}; wanted {wanted}{about}"


def _unknown(name: str, model: type[BaseModel], holders: list[Any]) -> str:
    known = fields_of(holders)
    near = nearest(name, known)
    if near is None:
        elsewhere = find_key(model, name)
        meant = f"; did you mean {elsewhere!r}?" if elsewhere else "."
    else:
        meant = f"; did you mean {near!r}?"
    return f"unknown key {name!r}{meant} Known keys here: {', '.join(known) or 'none'}"


def _meant(found: Any, expected: str) -> str:
    """``expected`` is pydantic's list of choices, quoted."""
    near = nearest(str(found), (word.strip(" '\"") for word in expected.replace(" or ", ",").split(",")))
    return f" (did you mean {near!r}?)" if near else ""


def _discriminator(fault: ErrorDetails) -> str:
    return str(fault["ctx"]["discriminator"]).strip("'")


def _tags(fault: ErrorDetails, holders: list[Any]) -> str:
    name = _discriminator(fault)
    kinds = [field.annotation for holder in holders for key, field in fields_of([holder]).items() if key == name]
    return ", ".join(repr(choice) for kind in kinds for choice in getattr(kind, "__args__", ()))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def _together(problems: Iterator[Problem]) -> list[Problem]:
    """What a union's members say of one value becomes one problem."""
    by_place: dict[tuple[str, Key], list[str]] = {}
    for problem in problems:
        by_place.setdefault((problem.where, problem.key), []).append(problem.what)
    return [Problem(where, key, ", or ".join(dict.fromkeys(said))) for (where, key), said in by_place.items()]
