"""The options of the row log."""

from __future__ import annotations

from pydantic import BaseModel, ByteSize, ConfigDict, Field


class RowLogOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    segment_bytes: int = Field(
        default=64 << 20, ge=4096, description="a segment that holds this much of a table is followed by another"
    )
    extent_bytes: int = Field(
        default=1 << 20, ge=4096, description="rows of a table that are gathered in memory and written at once"
    )
    write_behind_bytes: int = Field(
        default=64 << 20,
        ge=4096,
        description="most bytes that wait to be written before whoever brings more has to wait",
    )
    max_space: float = Field(
        default=1.5, gt=1, description="bytes on disk, as a multiple of those that somebody can still reach"
    )
    compaction_share: float = Field(
        default=0.5,
        gt=0,
        description="bytes that compaction may move for each byte put, while there is room; beyond that puts wait for it",
    )
    bytes: ByteSize | None = Field(
        default=None,
        description="most bytes on disk, all directories and the segments of kept checkpoints together, as 20GB or a number; a run that "
        "needs more stops; not set: no bound",
    )
