"""What a module is built from: the parts of a job's config that concern its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator

from pipeline.config import Origins, validate_part
from pipeline.config.composing import compose
from pipeline.config.interpolation import interpolate
from pipeline.config.tree import node_of
from pipeline.modules.errors import BadSettings
from pipeline.rows.spec import TableSpec
from pipeline.session.settings import FeatureSettings, Part, RunSettings, Settings, TableSettings, dynamic_tables
from pipeline.store.options import StoreOptions
from pipeline.stream import CodecName, TableStream, When, selection_problems

NO_DENSE = "pipeline.modules.no_dense:NoDense"
OF_A_JOB = ("model", "dense_optimizer", "checkpoint", "replica", "stages")
"""Keys of a config that the user's own loop is in the place of."""


class ModuleStream(Part):
    """The stream of a module: rows alone, as files in ``path``."""

    every: When = Field("25ms", description='when to cut: "10 steps", "25ms", "1s"')
    codec: CodecName = Field(
        "fp32",
        description="how weights travel: fp32 (bit for bit), fp16, bf16, int8, int4, or package.module:CODEC",
    )
    tables: dict[str, TableStream] = Field(default_factory=dict, description="what is streamed of a table, by name")
    snapshot_every: When | None = Field("300s", description="when to publish every row held; null: never")
    path: Path | None = Field(None, description="directory of the stream; not set: DIR/stream")
    segment_bytes: int = Field(64 << 20, ge=4096, description="a segment that holds this much is followed by another")


class ModuleSettings(Part):
    """One module. ``features`` not given: one for each table, of its name."""

    tables: dict[str, TableSettings] = Field(description="embedding tables, by name")
    features: dict[str, FeatureSettings] = Field(default_factory=dict, description="features, in order")
    store: StoreOptions = Field(default_factory=StoreOptions, description="L1 and the tiers below")
    device: Literal["auto", "host", "cuda"] = Field("auto", description="where L1 and the kernels live")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="of initial rows")
    threads: int = Field(default_factory=torch.get_num_threads, ge=1, description="threads of the kernels")
    dir: Path | None = Field(None, description="where it writes; not set: a temporary directory")
    resume: bool = Field(
        False, description="go on from the newest checkpoint of the module that was in `dir`; where none was, begin"
    )
    stream: ModuleStream | None = Field(None, description="not set: no stream")
    keep: int = Field(2, ge=1, description="how many checkpoints stay")
    lookahead: int = Field(4, ge=1, le=1024, description="how many batches `prefetch` takes ahead, at most")
    include_last_offset: bool = Field(
        False, description="as of torch.nn.EmbeddingBag: offsets end with the number of ids"
    )
    state_bytes: int = Field(4 << 30, ge=0, description="most bytes of rows that state_dict holds")

    @model_validator(mode="before")
    @classmethod
    def a_feature_for_each_table(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given.get("features") and isinstance(given.get("tables"), dict):
            return {**given, "features": {name: {} for name in given["tables"]}}
        return given

    def as_job(self, directory: Path) -> Settings:
        """The same as settings of a job without stages, in ``directory``. Raises BadSettings."""
        run = RunSettings(dir=directory, seed=self.seed, threads=self.threads)
        given = {
            "run": run.model_dump(),
            "device": self.device,
            "tables": {name: table.model_dump() for name, table in self.tables.items()},
            "features": {name: feature.model_dump() for name, feature in self.features.items()},
            "model": {"use": NO_DENSE},
            "store": self.store,
            "checkpoint": {"keep": self.keep},
            "stages": {},
        }
        try:
            return Settings.model_validate(given)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip() for fault in error.errors())
            raise BadSettings(faults) from error


def checked(given: Mapping[str, Any], poolings: Sequence[str]) -> ModuleSettings:
    """Raises ConfigError, with every key that is wrong, and BadSettings for a pooling that is not among ``poolings``.

    A feature that names no pooling has the first of them.
    """
    tree = dict(given)
    tables = tree.get("tables")
    features = tree.get("features") or ({name: {} for name in tables} if isinstance(tables, Mapping) else {})
    if isinstance(features, Mapping):
        tree["features"] = {
            name: {"pooling": poolings[0], **one} if isinstance(one, Mapping) else one for name, one in features.items()
        }
    origins = Origins.of_tree(node_of(tree, "argument"))
    settings = validate_part(ModuleSettings, tree, "", origins)
    dynamic = dynamic_tables(settings.tables)
    if dynamic:
        raise BadSettings(
            f"tables {', '.join(dynamic)} have an admission or an expiry, which only jobs count for: leave it out"
        )
    for name, feature in settings.features.items():
        if feature.pooling not in poolings:
            other = "Embeddings" if feature.pooling == "none" else "EmbeddingBags"
            raise BadSettings(
                f"features.{name}.pooling is {feature.pooling}; it may be {' or '.join(poolings)} here, and {other} takes {feature.pooling}"
            )
    return settings


def check_stream(stream: ModuleStream | None, specs: Sequence[TableSpec]) -> None:
    """Raises BadSettings where it selects what these tables do not have."""
    found = [] if stream is None else list(selection_problems(specs, stream.tables))
    if found:
        raise BadSettings("; ".join(f"stream.tables.{key}: {what}" for key, what in found))


def from_config(sources: Sequence[str], overrides: Sequence[str]) -> dict[str, Any]:
    """What a config says of a module: its tables, features, store, device, seed and threads. Raises ConfigError.

    What else a job has is passed over: the loop, the directory and the stream are the user's own.
    """
    plain = interpolate(compose(sources, overrides)).plain()
    run = plain.pop("run", None) or {}
    told = {key: value for key, value in plain.items() if key not in OF_A_JOB}
    return {**told, **{key: run[key] for key in ("seed", "threads") if key in run}}
