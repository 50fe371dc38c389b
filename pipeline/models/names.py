"""Finding what a config names as ``package.module:Name``, and checking the keywords a callable takes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.models.errors import ModelError, UnknownName


def load_named(what: str, name: str, known: Iterable[str]) -> Any:
    """Import ``package.module:Name``. ``known`` are the short names, for the error. Raises ModelError."""
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise UnknownName(what, name, (*known, "package.module:Name"))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModelError(f"{what} {name!r}: no module {error.name!r} can be imported") from error
    if not hasattr(module, attribute):
        raise UnknownName(f"{what} {name!r}: in {module_name}, attribute", attribute, _public_names(module))
    return getattr(module, attribute)


def check_keywords(what: str, call: Callable[..., Any], given: Mapping[str, Any], reserved: Iterable[str]) -> None:
    """Refuse keywords that ``call`` does not take, and missing ones. ``reserved`` are not the user's to give."""
    parameters = inspect.signature(call).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    open_to_user = {name: p for name, p in parameters.items() if name not in {*reserved, "self"}}
    for name in given:
        if name not in open_to_user:
            raise UnknownName(f"{what}: option", name, open_to_user)
    missing = [
        n for n, p in open_to_user.items() if p.default is p.empty and n not in given and p.kind is not p.VAR_POSITIONAL
    ]
    if missing:
        raise ModelError(f"{what}: option {missing[0]!r} is needed; it takes {', '.join(open_to_user)}")


def read_options(what: str, model: type[BaseModel], given: Mapping[str, Any]) -> Any:
    """Validate ``given`` by a pydantic model. Raises ModelError that names each bad key and the known ones."""
    for name in given:
        if name not in model.model_fields and model.model_config.get("extra") == "forbid":
            raise UnknownName(f"{what}: option", name, model.model_fields)
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        lines = [_line(fault["loc"], fault["msg"]) for fault in error.errors()]
        raise ModelError(f"{what}: {'; '.join(lines)}") from error


def _line(place: tuple[int | str, ...], what: str) -> str:
    where = ".".join(str(part) for part in place)
    return ": ".join(part for part in (where, what.removeprefix("Value error, ")) if part)


def _public_names(module: Any) -> list[str]:
    return [name for name in vars(module) if not name.startswith("_")]
