"""Full checkpoints and exports, and random reads of rows: see README.md."""

from pipeline.rowlog.chunks import RowChunk
from pipeline.rowlog.errors import (
    CheckpointCorrupt,
    ExportFailed,
    NoCheckpoint,
    OtherFormat,
    ReadFailed,
    ReadsClosed,
    RowLogError,
    UnknownBlob,
    UnknownTable,
)
from pipeline.rowlog.export import export_dense, export_table
from pipeline.rowlog.manifest import Manifest
from pipeline.rowlog.npz import NpzArray, write_npz
from pipeline.rowlog.random_reads import RandomReads, ReadCounters
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
    "RandomReads",
    "ReadCounters",
    "ReadFailed",
    "ReadsClosed",
    "RowChunk",
    "RowLogError",
    "UnknownBlob",
    "UnknownTable",
    "export_dense",
    "export_table",
    "write_npz",
]
