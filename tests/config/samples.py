"""A settings model with everything a real one has: nesting, mappings of models, lists, unions by kind, validators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sgd(Part):
    kind: Literal["sgd"] = "sgd"
    lr: float = Field(0.1, gt=0, description="step width")


class Adagrad(Part):
    kind: Literal["adagrad"] = "adagrad"
    lr: float = Field(0.1, gt=0, description="step width")
    eps: float = Field(1e-8, description="keeps the root away from zero")


class Table(Part):
    dim: int = Field(64, ge=4, description="weights per row")
    optimizer: Annotated[Sgd | Adagrad, Field(discriminator="kind")] = Sgd()


class Run(Part):
    dir: Path = Field(Path("runs/x"), description="where the run writes")
    steps: int | None = Field(None, ge=1, description="batches until the end")
    seed: int = 0


class Sample(Part):
    run: Run = Run()
    device: Literal["auto", "host", "cuda"] = "auto"
    every: int | str | None = None
    tables: dict[str, Table] = Field(description="embedding tables")
    splits: list[Table] = []
    stages: dict[str, dict[str, Any] | None] = {}

    @model_validator(mode="after")
    def some_table(self) -> Sample:
        if not self.tables:
            raise ValueError("no table is named")
        return self
