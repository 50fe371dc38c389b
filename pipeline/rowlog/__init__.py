"""Full checkpoints and exports: see README.md."""

from pipeline.rowlog.chunks import RowChunk
from pipeline.rowlog.errors import (
    CheckpointCorrupt,
    ExportFailed,
    NoCheckpoint,
    OtherFormat,
    RowLogError,
    UnknownBlob,
    UnknownTable,
)
from pipeline.rowlog.export import export_dense, export_table
from pipeline.rowlog.manifest import Manifest
from pipeline.rowlog.npz import NpzArray, write_npz
from pipeline.rowlog.reader import CheckpointReader, FoundRows
from pipeline.rowlog.writer import CheckpointWriter

__all__ = [
    "CheckpointCorrupt",
    "CheckpointReader",
    "CheckpointWriter",
    "ExportFailed",
    "FoundRows",
    "Manifest",
    "NoCheckpoint",
    "NpzArray",
    "OtherFormat",
    "RowChunk",
    "RowLogError",
    "UnknownBlob",
    "UnknownTable",
    "export_dense",
    "export_table",
    "write_npz",
]
