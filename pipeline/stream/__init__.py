"""From changed rows to published cuts; see README.md."""

from pipeline.stream.backlog_file import BACKLOG_FILE, Backlog, read_backlog, remove_backlog, save_backlog
from pipeline.stream.carried import column_bytes
from pipeline.stream.changed import ChangedSet
from pipeline.stream.counters import StreamCounters
from pipeline.stream.errors import BacklogLeft, PolicyError, SelectionChanged, SnapshotLost, StreamError
from pipeline.stream.grouped import GroupedIds
from pipeline.stream.journal import Journal
from pipeline.stream.options import CodecName, Duration, StreamerOptions, StreamIdentity, When
from pipeline.stream.own import OwnInitializer, OwnRows, OwnTable, RowReader, RowStreamer
from pipeline.stream.policy import CutPolicy, seconds_of
from pipeline.stream.published import published_since
from pipeline.stream.selection import Selection, TableStream, check_same_selection, selected, selection_problems
from pipeline.stream.source import ChangedIds, RowSnapshot, RowSource, RowsRead
from pipeline.stream.tail import StreamTail, find_tail
from pipeline.stream.taken import Changed
from pipeline.stream.warm import warm_up

__all__ = [
    "BACKLOG_FILE",
    "Backlog",
    "BacklogLeft",
    "Changed",
    "ChangedIds",
    "ChangedSet",
    "CodecName",
    "CutPolicy",
    "Duration",
    "GroupedIds",
    "Journal",
    "OwnInitializer",
    "OwnRows",
    "OwnTable",
    "PolicyError",
    "RowReader",
    "RowSnapshot",
    "RowSource",
    "RowStreamer",
    "RowsRead",
    "Selection",
    "SelectionChanged",
    "SnapshotLost",
    "StreamCounters",
    "StreamError",
    "StreamIdentity",
    "StreamTail",
    "StreamerOptions",
    "TableStream",
    "When",
    "check_same_selection",
    "column_bytes",
    "find_tail",
    "published_since",
    "read_backlog",
    "remove_backlog",
    "save_backlog",
    "seconds_of",
    "selected",
    "selection_problems",
    "warm_up",
]
