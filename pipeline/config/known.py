"""What keys a pydantic model knows at a place, and which of them a misspelt one was meant to be."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.config.keys import Key, format_key

CUTOFF = 0.6
SEARCH_DEPTH = 4


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be."""
    by_fold = {name.casefold(): name for name in known}
    close = get_close_matches(word.casefold(), by_fold, n=1, cutoff=CUTOFF)
    return by_fold[close[0]] if close else None


def alternatives(annotation: Any) -> Iterator[Any]:
    """The types a value may have: unions opened, ``Annotated`` taken off."""
    if get_origin(annotation) is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from alternatives(member)
    else:
        yield annotation


def _held_by(field: FieldInfo) -> Iterator[Any]:
    """The types a field may have. Where its annotation carries something that has ``alternatives()``, that knows them."""
    told = [note for note in field.metadata if hasattr(note, "alternatives")]
    return iter(told[0].alternatives()) if told else alternatives(field.annotation)


def step_into(annotations: Iterable[Any], part: str | int) -> list[Any]:
    """What may stand at ``part`` of a value of one of these types."""
    return [inner for annotation in annotations for inner in _inside(annotation, part)]


def narrow(annotations: Sequence[Any], tag: str | int) -> list[Any]:
    """The members of a union that pydantic means by ``tag``; all of them when it is none of ours."""
    return [annotation for annotation in annotations if _has_tag(annotation, tag)] or list(annotations)


def fields_of(annotations: Iterable[Any]) -> dict[str, FieldInfo]:
    """The fields of those of the types that are models, by the key they have in a config."""
    return {
        field.alias or name: field
        for model in annotations
        if _is_model(model)
        for name, field in model.model_fields.items()
    }


def find_key(model: type[BaseModel], name: str) -> str | None:
    """Where else in the config a key of this name is known; None where nowhere, or in more than one place."""
    places = [format_key(key) for key in _places(model, name, ()) if len(key) > 1]
    return places[0] if len(places) == 1 else None


def _places(model: type[BaseModel], name: str, above: Key) -> Iterator[Key]:
    for key, field in fields_of([model]).items():
        if key == name:
            yield (*above, key)
        if len(above) < SEARCH_DEPTH:
            for inner in _held_by(field):
                if _is_model(inner):
                    yield from _places(inner, name, (*above, key))


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _is_model(annotation):
        field = fields_of([annotation]).get(str(part))
        if field is not None:
            yield from _held_by(field)
    elif origin is tuple and isinstance(part, int):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            yield from alternatives(arguments[0])
        elif part < len(arguments):
            yield from alternatives(arguments[part])
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from alternatives(arguments[1])
    elif isinstance(origin, type) and isinstance(part, int) and len(arguments) == 1:
        yield from alternatives(arguments[0])


def _has_tag(annotation: Any, tag: str | int) -> bool:
    if not _is_model(annotation):
        return False
    if annotation.__name__ == tag:
        return True
    literals = [
        field.annotation for field in annotation.model_fields.values() if get_origin(field.annotation) is Literal
    ]
    return any(tag in get_args(literal) for literal in literals)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
