"""Rows of a loop of one's own, streamed; see README.md."""

from pipeline.stream.own.source import OwnRows, RowReader
from pipeline.stream.own.streamer import RowStreamer
from pipeline.stream.own.tables import OwnInitializer, OwnTable

__all__ = ["OwnInitializer", "OwnRows", "OwnTable", "RowReader", "RowStreamer"]
