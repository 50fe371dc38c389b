"""What is wrong with the options of a stage: where, and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pipeline.flow.errors import Problem
from pipeline.flow.nearest import listed, nearest

Models = Sequence[type[BaseModel]]


def problems_of(
    error: ValidationError, model: type[BaseModel], path: str, more_keys: Sequence[str]
) -> Iterator[Problem]:
    """``more_keys``: what is known beside the model's own keys."""
    for fault in error.errors(include_url=False):
        keys, holders, field = _walk(model, fault["loc"])
        where = ".".join([path, *keys])
        if fault["type"] == "extra_forbidden":
            yield Problem(where, _unknown_key(keys[-1], holders, more_keys if len(keys) == 1 else ()))
        elif fault["type"] == "missing":
            yield Problem(where, "the key is missing")
        elif fault["type"] == "union_tag_invalid":
            tag, known = fault["ctx"]["tag"], fault["ctx"]["expected_tags"]
            yield Problem(
                f"{where}.{fault['ctx']['discriminator'].strip(chr(39))}", f"found {tag!r}; one of {known} would do"
            )
        else:
            said = fault["msg"].removeprefix("Value error, ")
            shown = not isinstance(fault["input"], Mapping) and (field is None or field.repr)
            yield Problem(where, f"{said}, found {fault['input']!r}" if shown else said)


def _walk(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], Models, FieldInfo | None]:
    """The keys on the way to a value, without tags of unions; the models, one of which holds it; its field, if it is one."""
    keys: list[str] = []
    holders: Models = [model]
    inside: list[Any] = [model]
    field: FieldInfo | None = None
    for part in location:
        models = [one for one in inside if isinstance(one, type) and issubclass(one, BaseModel)]
        fields = [one.model_fields[str(part)] for one in models if part in one.model_fields]
        tagged = [one for one in models if (kind := one.model_fields.get("kind")) is not None and kind.default == part]
        if tagged and not fields:
            inside = list(tagged)
            continue
        values = [get_args(one)[1] for one in inside if get_origin(one) is dict]
        keys.append(str(part))
        field = fields[0] if fields else None
        holders = models
        inside = [found for one in (*(one.annotation for one in fields), *values) for found in _members(one)]
    return keys, holders, field


def _members(annotation: Any) -> Iterator[Any]:
    """The types that a value of this type may have."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _unknown_key(key: str, holders: Models, more_keys: Sequence[str]) -> str:
    known = list(dict.fromkeys([*(name for one in holders for name in one.model_fields), *more_keys]))
    return f"unknown key{nearest(key, known)} Known keys: {listed(known)}"
