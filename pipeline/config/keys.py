"""Key paths: where a value stands in a config, as a tuple and as text.

``stages.source.files[0]`` is ``("stages", "source", "files", 0)``. A name that holds a dot stands in brackets:
``tables[user.clicks].dim``.
"""

from __future__ import annotations

import re

Key = tuple[str | int, ...]

_NAME, _BRACKETS = r"[^.\[\]]+", r"\[[^\[\]]+\]"
_WHOLE = re.compile(rf"(?:{_NAME}|{_BRACKETS})(?:\.{_NAME}|{_BRACKETS})*")
_SEGMENT = re.compile(rf"{_NAME}|{_BRACKETS}")
_PLAIN = re.compile(r"[^.\[\]=]+")


def format_key(key: Key) -> str:
    """The text of a key path; empty for the root."""
    text = ""
    for part in key:
        if isinstance(part, str) and _PLAIN.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part}]"
    return text


def parse_key(text: str) -> Key:
    """The key path that ``text`` names. Raises ValueError when it is malformed.

    A number in brackets is an index; whoever applies the key reads it as a name where no list stands.
    """
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no key path; one reads like stages.source.files[0]")
    return tuple(_part(segment) for segment in _SEGMENT.findall(text))


def _part(segment: str) -> str | int:
    if segment[0] != "[":
        return segment
    inside = segment[1:-1]
    return int(inside) if inside.isdecimal() else inside
