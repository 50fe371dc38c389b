"""``store.tiers``: the tiers as a list, and tiers of one's own by name. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

ORDER: Final = ("l1", "dram", "ssd", "use")
KEYS: Final = {"l1": "l1_rows", "dram": "dram_bytes", "ssd": "ssd", "use": "tier"}
ONLY: Final = {"l1": "rows", "dram": "bytes"}
"""The one key of entries that say no more than a size."""
FORMS: Final = "{l1: {rows: ...}}, {dram: {bytes: ...}}, {ssd: {path: ..., bytes: ...}} or {use: package.module:Class}"


def merge_tiers(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a store with what its ``tiers`` lists under the keys of its own. Raises ValueError that says what would do."""
    merged, last = {key: value for key, value in given.items() if key != "tiers"}, -1
    if not isinstance(given["tiers"], list):
        raise ValueError(f"store.tiers is a list of {FORMS}")
    for entry in given["tiers"]:
        kind = _kind_of(entry)
        if ORDER.index(kind) <= last or (kind == "use" and last == ORDER.index("ssd")):
            raise ValueError(
                f"store.tiers are listed from the top, each once: l1, dram, then ssd or one of your own; found {kind} out of place"
            )
        last = ORDER.index(kind)
        if merged.get(KEYS[kind]) is not None:
            raise ValueError(f"store.tiers lists {kind}, and store.{KEYS[kind]} is given too: keep one of them")
        merged[KEYS[kind]] = _value_of(kind, entry)
    return merged


def _kind_of(entry: Any) -> str:
    if isinstance(entry, Mapping):
        if "use" in entry:
            return "use"
        if len(entry) == 1 and next(iter(entry)) in KEYS:
            return str(next(iter(entry)))
    raise ValueError(f"store.tiers: {entry!r} is no tier; one is written {FORMS}")


def _value_of(kind: str, entry: Mapping[str, Any]) -> Any:
    if kind == "use":
        return dict(entry)
    value = entry[kind] or {}
    if kind not in ONLY:
        return value
    if not isinstance(value, Mapping) or set(value) != {ONLY[kind]}:
        raise ValueError(f"store.tiers: {kind} has one key, {ONLY[kind]}; found {value!r}")
    return value[ONLY[kind]]


def find_tier(use: str) -> Callable[..., Any]:
    """The class named ``package.module:Class``. Raises ValueError that says which part of the name led nowhere."""
    module_name, colon, class_name = use.partition(":")
    if not colon:
        raise ValueError(f"{use!r} names no tier; one of your own is named package.module:Class")
    try:
        found: Callable[..., Any] = getattr(import_module(module_name), class_name)
    except ImportError as error:
        raise ValueError(f"tier {use!r}: cannot import {module_name!r} ({error})") from error
    except AttributeError:
        raise ValueError(f"tier {use!r}: module {module_name!r} has no {class_name!r}") from None
    return found
