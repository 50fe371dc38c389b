"""The row log: see ``row_log`` and the room's README.md."""

from pipeline.rowlog.log.errors import LogClosed, LogCorrupt, LogFailed, LogFull
from pipeline.rowlog.log.mark import Beginning, Held, Mark, SavedRows, SavedTable
from pipeline.rowlog.log.options import RowLogOptions
from pipeline.rowlog.log.row_log import RowLog
from pipeline.rowlog.log.row_reads import RowReads

__all__ = [
    "Beginning",
    "Held",
    "LogClosed",
    "LogCorrupt",
    "LogFailed",
    "LogFull",
    "Mark",
    "RowLog",
    "RowLogOptions",
    "RowReads",
    "SavedRows",
    "SavedTable",
]
