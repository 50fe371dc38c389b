"""The root of a config: every key outside ``stages`` and where it is described. Stages bring their own options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from pipeline.flow import Every
from pipeline.models.options import DenseOptimizerOptions, ScheduleOptions
from pipeline.optim import OPTIMIZERS, OptimizerOptions, RowwiseAdagradOptions
from pipeline.replica.replica import PINNED_BYTES
from pipeline.rows.spec import NAME_PATTERN
from pipeline.session.hooks import HookSettings
from pipeline.store.admission import LEAST_BYTES
from pipeline.store.options import StoreOptions


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSettings(Part):
    dir: Path = Field(Path("runs/rowstream"), description="where the run writes: summary, checkpoints, stream")
    steps: int | None = Field(None, ge=1, description="stop after so many batches; not set: at the end of the source")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="of initial rows, dense weights, shuffles and negatives")
    threads: int = Field(
        default_factory=lambda: min(os.cpu_count() or 1, 8), ge=1, description="threads of the compute lane; recorded"
    )
    background_nice: int = Field(
        0,
        ge=0,
        le=19,
        description="nice value of lanes that no step waits for (stream, checkpoint, eval); where other processes keep the processors "
        "busy, training waits for what such a lane holds, so 0",
    )
    progress_s: float = Field(1.0, gt=0, description="seconds between two progress reports")


class InitSettings(Part):
    kind: Literal["uniform", "normal", "zeros"] = Field("uniform", description="distribution of initial weights")
    low: float = Field(-0.01, description="uniform: lower bound")
    high: float = Field(0.01, description="uniform: upper bound")
    mean: float = Field(0.0, description="normal: mean")
    std: float = Field(0.01, ge=0, description="normal: standard deviation")

    @model_validator(mode="after")
    def bounds_in_order(self) -> InitSettings:
        if not self.low <= self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class AdmissionSettings(Part):
    after: int = Field(
        ge=1, le=2**31 - 1, description="an id has a row of its own in the steps behind its `after`-th occurrence"
    )
    bytes: ByteSize = Field(
        ByteSize(64 << 20),
        ge=LEAST_BYTES,
        description="memory for counts, as 64MB or a number, and as much while a checkpoint is written: exact for the first ids (128 "
        "bytes each), for others a sketch that may admit early",
    )
    default: float = Field(
        0.0, ge=-3e38, le=3e38, allow_inf_nan=False, description="every weight of the row that ids without one share"
    )

    @field_validator("default")
    @classmethod
    def no_negative_zero(cls, default: float) -> float:
        return default + 0.0


class ExpirySettings(Part):
    steps: int | None = Field(None, ge=1, le=2**40 - 1, description="a row ends when it was not used for so many steps")
    rows: int | None = Field(None, ge=1, description="rows that stay; beyond that those of the lowest score end")
    score: Literal["last_use", "uses"] = Field(
        "last_use", description="what `rows` goes by: the step of the last use, or how often, halved at each round"
    )
    every: int = Field(1000, ge=1, le=2**40 - 1, description="a round, at which rows end, is held every so many steps")

    @model_validator(mode="after")
    def ends_rows(self) -> ExpirySettings:
        if self.steps is None and self.rows is None:
            raise ValueError("neither steps nor rows is set, so no row would ever expire; set one of them, or both")
        if self.rows is None and self.score != "last_use":
            raise ValueError(f"score {self.score} says which rows stay within `rows`, which is not set")
        return self


class MetadataSettings(Part):
    dtype: Literal["int8", "int16", "int32", "int64", "float32", "uint8"] = Field("int64", description="of its numbers")
    width: int = Field(1, ge=1, le=256, description="numbers a row")


class TableSettings(Part):
    dim: int = Field(64, ge=4, le=1024, multiple_of=4, description="weights per row, a multiple of 4")
    init: InitSettings = Field(default_factory=InitSettings, description="how rows begin")
    optimizer: OptimizerOptions = Field(default_factory=RowwiseAdagradOptions, description="how rows are updated")
    schedule: ScheduleOptions = Field(
        default_factory=ScheduleOptions, description="how the optimizer's learning rate goes with the step"
    )
    weights: Literal["fp32", "fp16", "bf16"] = Field("fp32", description="what weights are kept in, in every tier")
    states: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="what the optimizer's states of a number per weight are kept in; bf16: adam, partial_rowwise_adam",
    )
    rounding: Literal["stochastic", "nearest"] = Field(
        "stochastic",
        description="how an update rounds to 16 bits: stochastic loses nothing on average, with random numbers that depend on seed, "
        "table, id, step and column alone",
    )
    identities: int | None = Field(
        None,
        ge=1,
        le=64,
        description="a row keeps so many int64 (column `identity`): the raw ids behind the id of its last use; not set: none",
    )
    metadata: MetadataSettings | None = Field(
        None, description="numbers that a row keeps of its last use (column `metadata`); not set: none"
    )
    admission: AdmissionSettings | None = Field(
        None, description="rows only for ids that occur often; not set: every id has a row"
    )
    expiry: ExpirySettings | None = Field(
        None, description="rows end that are not used any more; not set: a row stays for good"
    )
    max_rows: int | None = Field(
        None, ge=1, description="rows it may come to have: then check can say that the tiers are too small for them"
    )

    @model_validator(mode="after")
    def columns_have_names_of_their_own(self) -> TableSettings:
        asked = {"identity": self.identities, "metadata": self.metadata}
        for column in OPTIMIZERS[self.optimizer.kind].state_columns(self.optimizer, self.dim):
            if asked.get(column.name) is not None:
                raise ValueError(
                    f"{self.optimizer.kind} has a state {column.name!r}, so no meta column can be named so"
                )
        return self

    @model_validator(mode="after")
    def states_may_be_narrow(self) -> TableSettings:
        may = [name for name, spec in OPTIMIZERS.items() if spec.narrow_states]
        if self.states != "fp32" and self.optimizer.kind not in may:
            raise ValueError(
                f"states are {self.states}, but {self.optimizer.kind} keeps its states in fp32; bf16 is for {', '.join(may)}"
            )
        return self


def dynamic_tables(tables: Mapping[str, TableSettings]) -> list[str]:
    """Names of those whose rows come or go by what ids occur."""
    return [name for name, table in tables.items() if table.admission or table.expiry]


class FeatureSettings(Part):
    table: str | None = Field(None, description="the table of its rows; not set: the table of the same name")
    pooling: Literal["sum", "mean", "none"] = Field("sum", description="how the rows of a bag combine")


class ModelSettings(BaseModel):
    """``use`` names the model; all other keys are its own options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    use: str = Field("dlrm", description="dlrm, or package.module:Class")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class CheckpointSettings(Part):
    every: int | str | None = Field(
        None, description='"1000 steps" or "60s"; not set: at the end and on interrupt only'
    )
    keep: int = Field(2, ge=1, description="how many checkpoints stay")
    copy_to: Path | None = Field(
        None,
        description="a directory that gets a copy of each checkpoint, whole on its own: segments are linked, on another disk copied",
    )

    @field_validator("every")
    @classmethod
    def says_when(cls, every: int | str | None) -> int | str | None:
        Every.parse(every)
        return every


class ReplicaSettings(Part):
    embedded: bool = Field(
        True, description="follow the stream in this process too, to measure freshness; off saves its share of a core"
    )
    pinned_bytes: int = Field(
        PINNED_BYTES, ge=0, description="old rows that it keeps for open views; beyond that the oldest views end"
    )


class Settings(Part):
    """One training job."""

    run: RunSettings = Field(default_factory=RunSettings, description="where, how long, which seed")
    device: Literal["auto", "host", "cuda"] = Field("auto", description="where L1 and the kernels live")
    tables: dict[str, TableSettings] = Field(description="embedding tables, by name")
    features: dict[str, FeatureSettings] = Field(description="features of a sample, in order")
    model: ModelSettings = Field(default_factory=ModelSettings, description="the dense side")
    dense_optimizer: DenseOptimizerOptions = Field(
        default_factory=DenseOptimizerOptions, description="optimizer of the dense weights"
    )
    store: StoreOptions = Field(default_factory=StoreOptions, description="L1 and the tiers below")
    hooks: dict[str, HookSettings] = Field(
        default_factory=dict, description="code of your own that is called with rows, by name, in order"
    )
    checkpoint: CheckpointSettings = Field(default_factory=CheckpointSettings, description="when state is saved")
    replica: ReplicaSettings = Field(default_factory=ReplicaSettings, description="the replica inside the run")
    stages: dict[str, dict[str, Any] | None] = Field(
        description="the stages, in order; see `python -m pipeline stages`"
    )

    @field_validator("tables")
    @classmethod
    def table_names(cls, tables: dict[str, TableSettings]) -> dict[str, TableSettings]:
        import re

        for name in tables:
            if not re.fullmatch(NAME_PATTERN, name):
                raise ValueError(f"table name {name!r} does not match {NAME_PATTERN}")
        if not tables:
            raise ValueError("no table is named")
        return tables

    @model_validator(mode="after")
    def features_have_tables(self) -> Settings:
        if not self.features:
            raise ValueError("no feature is named")
        for name, feature in self.features.items():
            if (feature.table or name) not in self.tables:
                raise ValueError(
                    f"feature {name!r} reads table {feature.table or name!r}, which is not among the tables {list(self.tables)}"
                )
        return self

    def table_of(self, feature: str) -> str:
        return self.features[feature].table or feature
