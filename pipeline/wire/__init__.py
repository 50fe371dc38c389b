"""Frames and the transports that carry them; see README.md."""

from pipeline.wire.dense import DenseAssembler, dense_digest, split_dense
from pipeline.wire.digest import runs_digest
from pipeline.wire.encoding import decode_frame, encode_frame
from pipeline.wire.errors import (
    FrameError,
    PositionBeyondEnd,
    StreamAbsent,
    StreamCorrupt,
    StreamLost,
    StreamTrimmed,
    TransportClosed,
    TransportError,
    WireError,
    WriterFenced,
)
from pipeline.wire.file_transport import FileTransport, FileTransportOptions, holds_stream
from pipeline.wire.frames import (
    DEFAULT_LIMITS,
    START,
    CommitFrame,
    CutPosition,
    DenseFrame,
    DensePiece,
    Frame,
    FrameLimits,
    HeaderFrame,
    RowsFrame,
    StreamedTable,
)
from pipeline.wire.row_runs import RowRuns, RunHead, TableRows
from pipeline.wire.transport import Position, Subscription, Transport
from pipeline.wire.weights import RowBlock, split_runs

__all__ = [
    "DEFAULT_LIMITS",
    "START",
    "CommitFrame",
    "CutPosition",
    "DenseAssembler",
    "DenseFrame",
    "DensePiece",
    "FileTransport",
    "FileTransportOptions",
    "Frame",
    "FrameError",
    "FrameLimits",
    "HeaderFrame",
    "Position",
    "PositionBeyondEnd",
    "RowBlock",
    "RowRuns",
    "RowsFrame",
    "RunHead",
    "StreamAbsent",
    "StreamCorrupt",
    "StreamLost",
    "StreamTrimmed",
    "StreamedTable",
    "Subscription",
    "TableRows",
    "Transport",
    "TransportClosed",
    "TransportError",
    "WireError",
    "WriterFenced",
    "decode_frame",
    "dense_digest",
    "encode_frame",
    "holds_stream",
    "runs_digest",
    "split_dense",
    "split_runs",
]
