"""Which columns of a log become what: the options that all logs share."""

from __future__ import annotations

from typing import Any, Final, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from pipeline.flow.stage import StageOptions

RAW: Final = "raw"
"""In ``identities``: the feature's own id, as it was before ``buckets``."""
Numbers = Literal["int8", "int16", "int32", "int64", "float32", "uint8"]


class MetadataColumns(StageOptions):
    """Numbers that go along with each id, for a table that keeps ``metadata``."""

    columns: tuple[str, ...] = Field(min_length=1, description="a column for each number")
    dtype: Numbers = Field("int64", description="what they become; the table's")


class FeatureColumn(StageOptions):
    """Where the ids of one feature stand. A missing id is an empty bag."""

    column: str = Field(description="the column of its ids")
    hash: Literal["xxh64"] | None = Field(
        None, description="hash the text of each id to 64 bits; null: ids are integers, taken as they are"
    )
    separator: str | None = Field(
        None, min_length=1, description="between the ids of one field, which then is a bag of many"
    )
    weights: str | None = Field(None, description="a column with one weight for each id, cut by the same separator")
    buckets: int | None = Field(
        None,
        ge=1,
        le=2**62,
        description="ids become 0 .. buckets - 1, by splitmix64 (pipeline/rows/buckets.py); null: as they are",
    )
    identities: tuple[str, ...] = Field(
        (),
        description="for a table that keeps `identities`, as many: `raw`, the id before `buckets`; columns of integers, one for each id",
    )
    metadata: MetadataColumns | None = Field(
        None,
        description="columns of numbers, one for each id, for a table that keeps `metadata`: names, or {columns, dtype}",
    )

    @field_validator("identities", mode="before")
    @classmethod
    def one_identity(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("metadata", mode="before")
    @classmethod
    def names_are_metadata(cls, value: Any) -> Any:
        names = (value,) if isinstance(value, str) else value
        return {"columns": names} if isinstance(names, list | tuple) else value

    @property
    def num_identities(self) -> int:
        return len(self.identities)

    @property
    def metadata_shape(self) -> dict[str, Any] | None:
        """As a table's ``metadata``."""
        return None if self.metadata is None else {"dtype": self.metadata.dtype, "width": len(self.metadata.columns)}

    def beside(self) -> dict[str, pa.DataType]:
        """The columns of identities and metadata, and what a text log converts each to."""
        kinds: dict[str, pa.DataType] = {name: pa.int64() for name in self.identities if name != RAW}
        if self.metadata is not None:
            number = pa.float64() if self.metadata.dtype == "float32" else pa.int64()
            kinds |= {name: number for name in self.metadata.columns if name not in kinds}
        return kinds


class DenseColumns(StageOptions):
    """Some numeric columns, and what is done to them: x -> scale * transform(x)."""

    columns: tuple[str, ...] = Field(min_length=1, description="the columns, in order")
    transform: Literal["none", "log1p"] = Field(
        "none", description="log1p: sign(x) * log(1 + |x|), which takes negative numbers too"
    )
    scale: float = Field(1.0, allow_inf_nan=False, description="factor after the transform")
    missing: float | None = Field(
        0.0, allow_inf_nan=False, description="the outcome where there is no value; null: that is a bad line"
    )


class LabelColumn(StageOptions):
    """A label from a column: as it is, between 0 and 1, or whether it reaches a bound."""

    column: str = Field(description="the column")
    at_least: float | None = Field(None, allow_inf_nan=False, description="1 where the column is at least this, else 0")


class Mapping(StageOptions):
    """The columns of a sample."""

    features: dict[str, FeatureColumn] = Field(
        min_length=1,
        description="by feature: a column's name, or {column, hash, separator, weights, buckets, identities, metadata}",
    )
    dense: tuple[DenseColumns, ...] = Field(
        (), description="dense columns: names, or groups {columns, transform, scale, missing}"
    )
    label: LabelColumn | Literal[1] = Field(
        description="a column's name, {column, at_least}, or 1 for a log of positives"
    )
    time: str | None = Field(
        None, description="column of integers that the rows are ordered by; batches show it in their cursor"
    )

    @field_validator("features", mode="before")
    @classmethod
    def names_are_columns(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: {"column": found} if isinstance(found, str) else found for name, found in value.items()}

    @field_validator("dense", mode="before")
    @classmethod
    def names_are_groups(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"columns": [item]} if isinstance(item, str) else item for item in value]

    @field_validator("label", mode="before")
    @classmethod
    def name_is_rule(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def dense_columns_differ(self) -> Mapping:
        names = [name for group in self.dense for name in group.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"`dense` names a column twice: {names}")
        return self

    @property
    def num_dense(self) -> int:
        return sum(len(group.columns) for group in self.dense)

    def types(self) -> dict[str, pa.DataType]:
        """The wanted columns, and the type that a text log converts each to while parsing."""
        types: dict[str, pa.DataType] = {}
        for feature in self.features.values():
            text = feature.hash is not None or feature.separator is not None
            types[feature.column] = pa.string() if text else pa.int64()
            if feature.weights is not None:
                types[feature.weights] = pa.string() if feature.separator is not None else pa.float64()
        for feature in self.features.values():
            for name, kind in feature.beside().items():
                types.setdefault(name, kind if feature.separator is None else pa.string())
        numbers = [name for group in self.dense for name in group.columns]
        if isinstance(self.label, LabelColumn):
            numbers.append(self.label.column)
        for name in numbers:
            types.setdefault(name, pa.float64())
        if self.time is not None:
            types.setdefault(self.time, pa.int64())
        return types
