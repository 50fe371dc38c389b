"""What rows are: layout, spec, version. The compiled parts (initial, index, codec, digest, hashing) are imported by
name."""

from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.rows.version import pack_version, steps_of, unpack_versions

__all__ = ["Column", "Initializer", "RowLayout", "TableSpec", "pack_version", "steps_of", "unpack_versions"]
