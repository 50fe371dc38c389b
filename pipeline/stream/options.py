"""What a streamer is told: who it is, and how much goes into a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.rows.codec import find_codec
from pipeline.stream.changed import LEAST_LIMIT_BYTES, LIMIT_BYTES
from pipeline.stream.policy import CutPolicy
from pipeline.wire.envelope import DEFAULT_LEVEL


def _says_when(text: str) -> str:
    CutPolicy.parse(text)
    return text


def _is_codec(name: str) -> str:
    find_codec(name)
    return name


When = Annotated[str, AfterValidator(_says_when)]
"""When to cut, as ``CutPolicy`` reads it."""
CodecName = Annotated[str, AfterValidator(_is_codec)]
"""A codec of ``rows.codec``."""


class StreamerOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    chunk_rows: int = Field(
        default=32768, ge=1, le=1 << 20, description="rows that are read, encoded and sent as one frame, at most"
    )
    dense: bool = Field(default=False, description="whether the dense weights ride in every cut")
    dense_frame_bytes: int = Field(default=4 << 20, ge=1024, le=32 << 20, description="dense weights sent as one frame")
    backlog_bytes: int = Field(
        default=LIMIT_BYTES,
        ge=LEAST_LIMIT_BYTES,
        description="most memory for the ids of changed rows; beyond it they are forgotten, and listed again when they are published",
    )
    zstd_level: int = Field(default=DEFAULT_LEVEL, ge=-50, le=19, description="zstd level of frames; lower is faster")


@dataclass(frozen=True, slots=True)
class StreamIdentity:
    """Who writes. A later process that writes the same run has a higher generation."""

    run_id: str
    writer: str
    generation: int
    shard: int = 0
    num_shards: int = 1
