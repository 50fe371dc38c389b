"""Codecs by name."""

from __future__ import annotations

from pipeline.rows.codec.base import Codec
from pipeline.rows.codec.built_in import BUILT_IN
from pipeline.rows.errors import UnknownCodec

CODECS: dict[str, Codec] = dict(BUILT_IN)


def find_codec(name: str) -> Codec:
    """The codec called ``name``. Raises UnknownCodec."""
    if name not in CODECS:
        raise UnknownCodec(name, list(CODECS))
    return CODECS[name]
