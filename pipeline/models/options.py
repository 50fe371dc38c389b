"""Options of the dense optimizer. Loads no torch: names of torch.optim are checked when the optimizer is built."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.models.schedules import check_schedule


class ScheduleOptions(BaseModel):
    """The learning rate of a step is ``lr`` times a pure function of the step's number, which counts from 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    use: str = Field(
        default="constant",
        description="constant, linear, cosine, step, or package.module:function(step, **options) -> float",
    )
    warmup_steps: int = Field(
        default=0, ge=0, description="the rate rises linearly over so many first steps, whatever the function"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="keywords of the function, such as steps, final, every"
    )

    @model_validator(mode="after")
    def takes_its_options(self) -> ScheduleOptions:
        check_schedule(self.use, self.options)
        return self


class DenseOptimizerOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    use: str = Field(default="Adagrad", description="an optimizer of torch.optim, by the name of its class")
    lr: float = Field(default=0.01, ge=0, allow_inf_nan=False, description="learning rate, before the schedule")
    options: dict[str, Any] = Field(
        default_factory=dict, description="other keywords of that class, such as weight_decay"
    )
    schedule: ScheduleOptions = Field(
        default_factory=ScheduleOptions, description="how the learning rate goes with the step"
    )
