"""Codecs by name, and how others join the built-in ones.

A stream names its codecs, and a reader knows them by these names alone: nothing is imported because a stream says so. One of your own is
known when ``register_codec`` was called, when a package that is installed gave it its name in the entry point group ``rowstream.codecs``,
or when somebody at this end named it as ``package.module:CODEC`` (``load_codec``: configs, ``replica --codec``, ``Replica(codecs=...)``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final

from pipeline.rows.codec.base import Codec, RowCodec
from pipeline.rows.codec.built_in import BUILT_IN
from pipeline.rows.codec.own import OwnCodec, checked_codec
from pipeline.rows.errors import BadCodec, UnknownCodec

GROUP: Final = "rowstream.codecs"
_known: dict[str, Codec] = dict(BUILT_IN)
CODECS: Final[Mapping[str, Codec]] = MappingProxyType(_known)
"""Those that are known by now."""


def register_codec(codec: RowCodec) -> Codec:
    """Let streams use a codec of one's own by its name; it is tried on a few rows first. Returns what ``find_codec`` will.

    Its module, loaded again, replaces it. Raises BadCodec for one that breaks what ``RowCodec`` promises, and for the name of another.
    """
    own = checked_codec(codec)
    other = _known.get(own.name)
    if other is not None and _place(other) != _place(own):
        raise BadCodec(own.name, f"{_place(codec)} has the name of {_place(other)}; give it another")
    _known[own.name] = own
    return own


def find_codec(name: str) -> Codec:
    """The codec called ``name``, as a stream calls it. Raises UnknownCodec, and BadCodec for one that its package names wrongly."""
    if name in _known:
        return _known[name]
    entry = _entries().get(name)
    if entry is None:
        raise UnknownCodec(name, codec_names())
    codec = register_codec(_load(entry.value))
    if codec.name != name:
        raise BadCodec(codec.name, f"{entry.value!r} has that name, and its package calls it {name!r}")
    return codec


def load_codec(named: str | RowCodec) -> Codec:
    """The codec that somebody at this end means: a name, ``package.module:CODEC``, or the codec itself. Raises UnknownCodec, BadCodec."""
    if not isinstance(named, str):
        return register_codec(named)
    return register_codec(_load(named)) if ":" in named else find_codec(named)


def load_codecs(named: Iterable[str | RowCodec] | None) -> None:
    """``load_codec`` of each."""
    for codec in named or ():
        load_codec(codec)


def codec_names() -> list[str]:
    """All names that can be used; loads none."""
    return list(dict.fromkeys([*_known, *sorted(_entries())]))


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(path: str) -> Any:
    module_name, _, name = path.partition(":")
    try:
        return getattr(import_module(module_name), name)
    except AttributeError as error:
        raise BadCodec(path, f"no {name!r} in {module_name!r}; name it as package.module:CODEC") from error
    except Exception as error:  # whatever the module does when it is imported
        raise BadCodec(path, f"importing it failed: {type(error).__name__}: {error}") from error


def _place(codec: Any) -> str:
    """Of which class it is: its module, loaded again, has another one of the same name."""
    one = type(codec.codec if isinstance(codec, OwnCodec) else codec)
    return f"{one.__module__}:{one.__qualname__}"
