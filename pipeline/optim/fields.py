"""Options that several optimizers have."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False, description="Learning rate.")]
Decay = Annotated[
    float, Field(ge=0, allow_inf_nan=False, description="Weight decay, of the rows of a batch only; 0: none.")
]
Eps = Annotated[
    float,
    Field(
        ge=1e-30,
        allow_inf_nan=False,
        description="Added to the root, so that a row without gradient divides by no zero.",
    ),
]
Beta = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, description="How much of a moment a step keeps.")]


class Options(BaseModel):
    """What every optimizer takes. Each says what ``kind`` it is: ``kind: Literal["name"] = "name"``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: str
    lr: Rate = 0.01
    max_gradient: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Each number of the gradient that reaches a bag is brought within -max_gradient .. max_gradient; 0: none is.",
        ),
    ] = 0.0
    max_norm: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Rows that a step leaves longer than this are scaled back to it; 0: none are.",
        ),
    ] = 0.0


class AdamFamily(Options):
    """What all optimizers with two moments take, in the order of ``MOMENTS``."""

    eps: Eps = 1e-8
    beta1: Beta = 0.9
    beta2: Beta = 0.999
    weight_decay: Decay = 0.0


MOMENTS = ("lr", "eps", "beta1", "beta2", "weight_decay")
