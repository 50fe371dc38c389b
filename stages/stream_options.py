"""Options of the stage ``stream``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import ByteSize, Field

from pipeline.rows.spec import TableSpec
from pipeline.stream import CodecName, Duration, StreamerOptions, TableStream, When, selection_problems
from pipeline.stream.changed import LEAST_LIMIT_BYTES, LIMIT_BYTES
from pipeline.stream.options import DICTIONARY_SAYS, SHUFFLE_SAYS
from pipeline.stream.packing import Shuffle
from stages.stream_effort import EffortOptions
from stages.stream_outage import RetryOptions
from stages.stream_place import StreamPlaceOptions

PASSED_ON = ("backlog_bytes", "chunk_rows", "dense", "shuffle", "dictionary_bytes")
"""Options that are the streamer's too."""


class StreamOptions(StreamPlaceOptions, EffortOptions):
    every: When = Field(
        "25ms", description='when to cut: "10 steps", "25ms", "1s"; a timed cut waits for the end of the running step'
    )
    codec: CodecName = Field(
        "fp32", description="how weights travel: fp32 (bit for bit), fp16, bf16, int8, int4, or package.module:CODEC"
    )
    tables: dict[str, TableStream] = Field(
        default_factory=dict, description="what is streamed of a table, by name; not named: its weights, by `codec`"
    )
    dense: bool = Field(False, description="whether the dense weights ride in every cut")
    snapshot_every: When | None = Field(
        "300s",
        description="when to publish every row held, so that late replicas can start and old segments go; null: never",
    )
    shards: int = Field(
        1,
        ge=1,
        le=256,
        description="streams that the rows are spread over, by a hash of table and id, each with a transport of its own; "
        "a replica joins them again. Fixed for the life of a stream",
    )
    backlog_bytes: ByteSize = Field(
        ByteSize(LIMIT_BYTES),
        ge=LEAST_LIMIT_BYTES,
        description="most memory for the ids of rows that wait to be published; beyond it they are let go, and the rows listed again",
    )
    on_failure: Literal["retry", "stop"] = Field(
        "retry", description="when the transport fails: retry (training goes on, rows wait), or stop the run"
    )
    retry: RetryOptions = Field(
        RetryOptions(), description="how long to wait before a transport that failed is tried again"
    )
    drain_timeout: Duration = Field(
        "60s",
        description="how long the end of a run waits for what is left to be published; then it is written down, and the run exits 1. A run "
        "that is resumed waits as long for its broker",
    )
    gives_way: bool = Field(
        False,
        description="make cuts only while the processor is idle, unless they come late by that: training keeps more of its speed, "
        "replicas are some milliseconds further behind",
    )
    chunk_rows: int = Field(32768, ge=1, le=1 << 20, description="rows that are read, encoded and sent as one frame")
    shuffle: Shuffle = Field("auto", description=SHUFFLE_SAYS)
    dictionary_bytes: int = Field(0, ge=0, le=1 << 20, description=DICTIONARY_SAYS)
    zstd_level: int | None = Field(None, ge=-50, le=19, description="zstd level of frames; not set: the measured best")

    def streamer_options(self) -> StreamerOptions:
        given: dict[str, Any] = {name: getattr(self, name) for name in PASSED_ON}
        if self.zstd_level is not None:
            given["zstd_level"] = self.zstd_level
        return StreamerOptions(**given)

    def table_problems(self, specs: Sequence[TableSpec]) -> Iterator[tuple[str, str]]:
        """What of the options cannot be with these tables: (key, what)."""
        return ((f"tables.{key}".rstrip("."), what) for key, what in selection_problems(specs, self.tables))
