"""Options of the synthetic source."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.flow.stage import StageOptions
from stages.sources.columns import Numbers
from stages.sources.options import BatchOptions
from stages.sources.reuse import distinct_ids


class SyntheticMetadata(StageOptions):
    """Made-up metadata: number j of an id is (sample's number * (j + 1)), as far as the dtype holds it."""

    dtype: Numbers = Field("int64", description="of the numbers; the table's")
    width: int = Field(1, ge=1, le=256, description="numbers for each id; the table's")


class SyntheticFeature(StageOptions):
    """How the ids of one feature are drawn: 0 .. ids - 1, by a Zipf law or with the reuse of a production model."""

    ids: int = Field(ge=1, le=2**40, description="how many ids there are")
    zipf: float = Field(1.05, ge=0, le=10, description="exponent of the Zipf law; 0: all ids alike")
    reuse: Literal["2021", "2022"] | None = Field(
        None, description="instead of the Zipf law: ids recur as in Meta's production ads models of that year"
    )
    period: int | None = Field(
        None, ge=16, description="`reuse`: accesses over which ids recur so; null: the period that needs all `ids` once"
    )
    bag: tuple[int, int] = Field((1, 1), description="ids of a sample: a number, or the least and the most")
    weights: bool = Field(False, description="give each id a weight between 0.5 and 1.5")
    buckets: int | None = Field(
        None,
        ge=1,
        le=2**62,
        description="ids become 0 .. buckets - 1, by splitmix64 (pipeline/rows/buckets.py); labels follow the ids before; null: none",
    )
    identities: int | None = Field(
        None,
        ge=1,
        le=64,
        description="for a table that keeps as many: the id before `buckets`, then the numbers that follow it",
    )
    metadata: SyntheticMetadata | None = Field(
        None, description="for a table that keeps it: the sample's number, counted from 0"
    )

    @property
    def num_identities(self) -> int:
        return self.identities or 0

    @property
    def metadata_shape(self) -> dict[str, Any] | None:
        """As a table's ``metadata``."""
        return None if self.metadata is None else self.metadata.model_dump()

    @field_validator("reuse", mode="before")
    @classmethod
    def year_is_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @field_validator("bag", mode="before")
    @classmethod
    def one_size(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def makes_sense(self) -> SyntheticFeature:
        if not 0 <= self.bag[0] <= self.bag[1] or self.bag[1] < 1:
            raise ValueError(f"`bag` is a size from 1 on, or [least, most], not {list(self.bag)}")
        if self.reuse is not None and "zipf" in self.model_fields_set:
            raise ValueError("`zipf` and `reuse` exclude each other")
        if self.period is not None and self.reuse is None:
            raise ValueError("`period` belongs to `reuse`")
        if self.reuse is not None and self.period is not None:
            need = distinct_ids(self.reuse, self.period)
            if need > self.ids:
                raise ValueError(f"a period of {self.period} needs {need} distinct ids, and `ids` is {self.ids}")
        return self


class SyntheticOptions(BatchOptions):
    """Made-up samples whose labels a model can learn. Every sample is a pure function of (seed, position)."""

    samples: int = Field(ge=1, description="samples of an epoch")
    features: dict[str, SyntheticFeature] = Field(
        min_length=1, description="by feature: how many ids, and how they are drawn"
    )
    dense: int = Field(0, ge=0, description="number of dense columns, uniform with mean 0 and variance 1")
    signal: float = Field(2.0, ge=0, description="standard deviation of the true logit: how much there is to learn")
    bias: float = Field(0.0, description="mean of the true logit")
    truth_seed: int = Field(
        0, ge=0, description="of the hidden weights and of which ids are popular; shared by a held-out set"
    )

    @property
    def num_dense(self) -> int:
        return self.dense
