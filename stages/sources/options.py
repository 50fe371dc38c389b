"""Options that the sources share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.flow.stage import StageOptions
from stages.logs.prepared import PrepareOptions
from stages.sources.blocks import Arrangement
from stages.sources.columns import Mapping


class RowLimits(StageOptions):
    """Which samples of each epoch are used."""

    skip: int = Field(0, ge=0, description="leave out so many samples at the begin of each epoch")
    take: int | None = Field(None, ge=1, description="then use so many; null: all")


class BatchOptions(StageOptions):
    """How samples become batches."""

    batch_size: int = Field(2048, ge=1, description="samples of a batch; only the very last may hold fewer")
    drop_last: bool = Field(False, description="leave out a last batch that is not full")
    epochs: int = Field(1, ge=1, description="how often to go through the samples")
    shuffle: int = Field(
        0, ge=0, description="permute within windows of so many consecutive samples; 0: keep the order"
    )
    seed: int | None = Field(None, ge=0, description="of the shuffle; null: run.seed")
    rows: RowLimits = Field(RowLimits(skip=0, take=None), description="limits to part of the samples")
    read_ahead: int = Field(8, ge=1, description="batches read ahead, at most")
    read_ahead_bytes: int = Field(64 << 20, ge=1, description="and their bytes, at most")
    max_ids: int | None = Field(
        None,
        ge=1,
        description="the most distinct ids a batch holds, if you know it: a smaller store.l1_rows is refused at once",
    )

    def arrangement(self, run_seed: int) -> Arrangement:
        return Arrangement(
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            seed=run_seed if self.seed is None else self.seed,
            skip=self.rows.skip,
            take=self.rows.take,
            drop_last=self.drop_last,
        )


class LogOptions(BatchOptions, Mapping):
    """A log in files."""

    paths: tuple[str, ...] = Field(
        min_length=1, description="files or patterns, in order; the files of a pattern in natural order"
    )
    follow: bool = Field(
        False, description="wait for new files, complete when their names appear, in name order; never ends"
    )
    poll_s: float = Field(0.5, gt=0, description="seconds between two looks for new files; `follow` only")
    on_error: Literal["fail", "skip"] = Field("fail", description="what to do with a line that cannot be used")
    max_skipped: int = Field(0, ge=0, description="fail when more bad lines than this were skipped")
    prepare: PrepareOptions | None = Field(None, description="sort and split the log by time first, once, into a cache")

    @field_validator("paths", mode="before")
    @classmethod
    def one_path(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def follow_goes_on(self) -> LogOptions:
        wrong = [
            name for name, is_set in (("epochs", self.epochs > 1), ("prepare", self.prepare is not None)) if is_set
        ]
        if self.follow and wrong:
            raise ValueError(f"a followed log never ends, so `follow` and `{wrong[0]}` exclude each other")
        if self.follow and len(self.paths) > 1:
            raise ValueError("`follow` takes one pattern: the order of names must be one order")
        if self.prepare is not None and self.prepare.sort is None and self.time is None:
            raise ValueError("`prepare` sorts by time: name the column in `time` or in `prepare.sort`")
        return self
