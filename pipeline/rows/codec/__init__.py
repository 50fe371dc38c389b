"""Codecs: how weights travel on the wire; see ``formulas`` for their bits."""

from pipeline.rows.codec.base import Codec, RowCodec, aligned
from pipeline.rows.codec.registry import CODECS, find_codec, load_codec, load_codecs, register_codec

__all__ = ["CODECS", "Codec", "RowCodec", "aligned", "find_codec", "load_codec", "load_codecs", "register_codec"]
