"""What the runtime gives every stage, built in or not: the keys of a stage's config that are not its own options.

A key that a stage's ``Options`` declare themselves (``on_error`` of a source, for the lines it reads) is the stage's.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIB = 1 << 20


class QueueOptions(BaseModel):
    """The bounds of a stage's input channel."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: int = Field(default=4, ge=1, description="most items that wait in front of the stage")
    bytes: int | None = Field(default=256 * MIB, ge=1, description="most bytes they hold together; null: no bound")


class RuntimeOptions(BaseModel):
    """Keys that every stage accepts beside its own options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str | None = Field(
        None, description="registered name of the stage, or package.module:Class; the stage's own name if not set"
    )
    enabled: bool = Field(default=True, description="false: the stage is left out of the graph")
    queue: QueueOptions = Field(
        QueueOptions(),
        description="bounds of the input channel; setting it gives the stage a channel and a lane visit of its own",
    )
    concurrency: int = Field(
        default=1, ge=1, le=1024, description="items worked on at once, order kept; effects none only"
    )
    retries: int = Field(default=0, ge=0, description="further attempts at an item that failed; effects none only")
    on_error: Literal["fail", "skip", "dead_letter"] = Field(
        "fail", description="what becomes of an item that failed for good; effects none only"
    )
    max_skipped: int = Field(
        default=0, ge=0, description="items that may be skipped or dead-lettered before the run fails"
    )
    dead_letter: str | None = Field(
        default=None, description="file that gets one JSON line for each dead-lettered item"
    )

    @model_validator(mode="after")
    def _combinations(self) -> RuntimeOptions:
        if self.on_error == "dead_letter" and self.dead_letter is None:
            raise ValueError("on_error: dead_letter needs dead_letter: PATH")
        if self.on_error != "dead_letter" and self.dead_letter is not None:
            raise ValueError(
                f"dead_letter: {self.dead_letter} is written by on_error: dead_letter only, not by {self.on_error}"
            )
        if self.on_error == "fail" and self.max_skipped:
            raise ValueError(f"max_skipped: {self.max_skipped} means something with on_error: skip or dead_letter only")
        return self

    def policies(self) -> list[str]:
        """The set keys that only a stage without effects may have."""
        named: dict[str, Any] = {"concurrency": 1, "retries": 0, "on_error": "fail"}
        return [f"{key}: {getattr(self, key)}" for key, default in named.items() if getattr(self, key) != default]


RUNTIME_KEYS = tuple(RuntimeOptions.model_fields)
