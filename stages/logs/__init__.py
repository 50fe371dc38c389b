"""Reading logs: which files, their bytes, their rows as Arrow tables; sorting and splitting them by time."""

from stages.logs.csv_format import CsvFormat
from stages.logs.errors import LogError
from stages.logs.files import LogFile, find_files, natural_key
from stages.logs.prepare import Log, Prepared, prepare
from stages.logs.prepared import PrepareOptions
from stages.logs.tables import LogTable, Place

__all__ = [
    "CsvFormat",
    "Log",
    "LogError",
    "LogFile",
    "LogTable",
    "Place",
    "PrepareOptions",
    "Prepared",
    "find_files",
    "natural_key",
    "prepare",
]
