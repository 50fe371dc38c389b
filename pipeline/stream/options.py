"""What a streamer is told: who it is, and how much goes into a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.rows.codec import load_codec
from pipeline.stream.changed import LEAST_LIMIT_BYTES, LIMIT_BYTES
from pipeline.stream.packing import Packer, Shuffle
from pipeline.stream.policy import CutPolicy, seconds_of
from pipeline.wire.envelope import DEFAULT_LEVEL
from pipeline.wire.frames import StreamedTable


def _says_when(text: str) -> str:
    CutPolicy.parse(text)
    return text


def _says_how_long(text: str) -> str:
    seconds_of(text)
    return text


def _is_codec(named: str) -> str:
    return load_codec(named).name


When = Annotated[str, AfterValidator(_says_when)]
"""When to cut, as ``CutPolicy`` reads it."""
Duration = Annotated[str, AfterValidator(_says_how_long)]
"""A time above zero, as ``seconds_of`` reads it."""
CodecName = Annotated[str, AfterValidator(_is_codec)]
"""A codec of ``rows.codec``, or one of somebody's own as ``package.module:CODEC``; the value is the name that streams know it by."""


SHUFFLE_SAYS = (
    "whether the bytes of ids, versions and rows are shuffled before compression; auto: where it pays by measurement"
)
DICTIONARY_SAYS = "size of a zstd dictionary, in bytes, trained on the first frames; it makes later ones smaller if they are short; 0: none"


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
    shuffle: Shuffle = Field(default="auto", description=SHUFFLE_SAYS)
    dictionary_bytes: int = Field(default=0, ge=0, le=1 << 20, description=DICTIONARY_SAYS)

    def packer(self, tables: Sequence[StreamedTable]) -> Packer:
        """What packs frames so."""
        return Packer(tables, self.zstd_level, self.shuffle, self.dictionary_bytes)


@dataclass(frozen=True, slots=True)
class StreamIdentity:
    """Who writes. A later process that writes the same run has a higher generation."""

    run_id: str
    writer: str
    generation: int
    shard: int = 0
    num_shards: int = 1
    continues: int | None = None
    """As of a header frame: which generations computed the same bits."""
    best_effort: bool = False
    """What is written is outside G3: rows wait, and a cut is no step's end."""
