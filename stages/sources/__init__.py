"""The built-in sources: csv, parquet, synthetic."""

from stages.sources.csv_log import CsvSource
from stages.sources.parquet_log import ParquetSource
from stages.sources.source import BatchSource
from stages.sources.synthetic import SyntheticSource

__all__ = ["BatchSource", "CsvSource", "ParquetSource", "SyntheticSource"]
