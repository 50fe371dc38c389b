"""Checkpoints and exports, and random reads of rows: see README.md."""

from pipeline.rowlog.checkpoint.array_files import write_arrays
from pipeline.rowlog.checkpoint.catalog import read_catalog
from pipeline.rowlog.checkpoint.export import export_dense, export_table
from pipeline.rowlog.checkpoint.manifest import Manifest
from pipeline.rowlog.checkpoint.reader import CheckpointReader, FoundRows
from pipeline.rowlog.checkpoint.row_arrays import RowArray, RowArrays
from pipeline.rowlog.checkpoint.table_reader import RowChunk
from pipeline.rowlog.checkpoint.writer import CheckpointWriter
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
from pipeline.rowlog.random_reads import RandomReads, ReadCounters

__all__ = [
    "CheckpointCorrupt",
    "CheckpointReader",
    "CheckpointWriter",
    "ExportFailed",
    "FoundRows",
    "Manifest",
    "NoCheckpoint",
    "OtherFormat",
    "RandomReads",
    "ReadCounters",
    "ReadFailed",
    "ReadsClosed",
    "RowArray",
    "RowArrays",
    "RowChunk",
    "RowLogError",
    "UnknownBlob",
    "UnknownTable",
    "export_dense",
    "export_table",
    "read_catalog",
    "write_arrays",
]
