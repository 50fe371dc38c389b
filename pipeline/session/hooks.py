"""Hooks that a config names: functions, or classes that are made for the run. What cannot be is refused before it starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.flow.nearest import listed, nearest
from pipeline.store import BadHook, HookPoint, Store
from pipeline.store.hooks import OnError, check_signature


class HookSettings(BaseModel):
    """One hook of a config. A class is made as ``Class(**options)``; its method of the place's name is the hook, or it is called itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    use: str = Field(description="package.module:function, or package.module:Class")
    at: tuple[HookPoint, ...] = Field(
        min_length=1, description="where it runs: before_update, after_update, before_evict, or a list of them"
    )
    tables: tuple[str, ...] | None = Field(None, description="the tables whose rows it is called with; not set: all")
    on_error: OnError = Field("stop", description="what it raises stops the run, or such a call is counted and skipped")
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of a class")

    @field_validator("at", mode="before")
    @classmethod
    def one_or_several(cls, at: Any) -> Any:
        return (at,) if isinstance(at, str) else at


def problems(hooks: Mapping[str, HookSettings], tables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key path, what) of all that is wrong with the hooks of a config. Imports them, and makes none."""
    for name, hook in hooks.items():
        for table in hook.tables or ():
            if table not in tables:
                yield (
                    f"hooks.{name}.tables",
                    f"no table {table!r}{nearest(table, tables)} The tables are {listed(tables)}",
                )
        try:
            found = _load(name, hook.use)
            for at in hook.at:
                _check_call(name, at, found)
        except BadHook as error:
            yield f"hooks.{name}.use", f"{hook.use!r}: {error.why}"
            continue
        why = _bad_options(found, hook.options)
        if why is not None:
            yield f"hooks.{name}.options", why


def add_hooks(store: Store, hooks: Mapping[str, HookSettings], at_end: Callable[[Callable[[], None]], Any]) -> None:
    """Make the hooks of a config and add them, in its order.

    An ``open(store)`` of a class is called first; its ``close()`` is given to ``at_end``.
    """
    for name, hook in hooks.items():
        found = _load(name, hook.use)
        made = found(**hook.options) if isinstance(found, type) else found
        if isinstance(found, type):
            if hasattr(made, "close"):
                at_end(made.close)
            if hasattr(made, "open"):
                made.open(store)
        for at in hook.at:
            call = getattr(made, at, made) if isinstance(found, type) else made
            store.add_hook(at, call, tables=hook.tables, on_error=hook.on_error, name=name)


def _load(name: str, use: str) -> Any:
    module_name, colon, attribute = use.partition(":")
    if not colon or not module_name or not attribute:
        raise BadHook(name, "a hook is named package.module:function or package.module:Class")
    try:
        module = import_module(module_name)
    except Exception as error:
        raise BadHook(name, f"importing {module_name!r} failed: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise BadHook(name, f"no {attribute!r} in {module_name!r}{nearest(attribute, there)} There: {listed(there)}")
    return getattr(module, attribute)


def _check_call(name: str, at: str, found: Any) -> None:
    if not isinstance(found, type):
        check_signature(name, at, found)
        return
    method = at if hasattr(found, at) else "__call__"
    plain = next((vars(part)[method] for part in found.__mro__ if method in vars(part)), None)
    if plain is None:
        raise BadHook(name, f"the class has no method {at}, and no __call__")
    bound = 0 if isinstance(plain, staticmethod | classmethod) else 1
    check_signature(name, at, getattr(found, method), bound)


def _bad_options(found: Any, options: Mapping[str, Any]) -> str | None:
    if not isinstance(found, type):
        return "only a class takes options, and this is none" if options else None
    signature = inspect.signature(found)
    try:
        signature.bind(**options)
    except TypeError as error:
        return f"{found.__name__} is made with {signature}: {error}"
    return None
