"""The plan of a run: what stages there are, with checked options, and which of them share a visit to a lane. Pure data.

Rules.

1. A stage has a channel in front of it, unless it is fused with the stage before: both ordered, both on the same
   lane, and the later one neither waits in ``ready`` nor was given a ``queue`` of its own.
2. Fused stages are one visit: one hop to the lane works through all of them. They remain separate stages with
   separate figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.flow.runtime_options import MIB, RuntimeOptions
from pipeline.flow.stage import Source, Stage, StageOptions


@dataclass(frozen=True, slots=True)
class StageNode:
    """A stage as a config names it.

    ``options`` still holds the runtime's keys; ``use`` None means the key ``use``, or the name.
    """

    name: str
    use: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any] | None) -> StageNode:
        """From one entry of the mapping ``stages`` in a config."""
        return cls(name, None, dict(options or {}))


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage that can run: its class was found and its options are valid."""

    name: str
    use: str
    stage_class: type[Stage]
    options: StageOptions
    runtime: RuntimeOptions

    @property
    def is_source(self) -> bool:
        return issubclass(self.stage_class, Source)

    @property
    def lane(self) -> str | None:
        return None if self.is_source else self.stage_class.lane

    @property
    def ordered(self) -> bool:
        return self.stage_class.effects == "ordered"

    @property
    def waits_ready(self) -> bool:
        return self.stage_class.ready is not Stage.ready


@dataclass(frozen=True, slots=True)
class Visit:
    """Stages that are worked through together: one, or several neighbours on one lane."""

    stages: tuple[PlannedStage, ...]

    @property
    def lane(self) -> str | None:
        return self.stages[0].lane

    @property
    def name(self) -> str:
        return "+".join(stage.name for stage in self.stages)


@dataclass(frozen=True, slots=True)
class Graph:
    """All stages in order, the source first, and the same grouped into visits."""

    stages: tuple[PlannedStage, ...]
    visits: tuple[Visit, ...]

    def describe(self) -> str:
        """The graph as a picture for people: one line for each stage, and the channel in front of it."""
        lines: list[str] = []
        for visit in self.visits:
            first = visit.stages[0]
            if not first.is_source:
                lines.append(f"  | {_bounds(first)}")
            lines += [_line(stage, fused=stage is not first) for stage in visit.stages]
        return "\n".join(lines)


def group_visits(stages: tuple[PlannedStage, ...]) -> tuple[Visit, ...]:
    """Fuse neighbours by the rule above."""
    groups: list[list[PlannedStage]] = []
    for stage in stages:
        if groups and _fuses(groups[-1][-1], stage):
            groups[-1].append(stage)
        else:
            groups.append([stage])
    return tuple(Visit(tuple(group)) for group in groups)


def _fuses(before: PlannedStage, stage: PlannedStage) -> bool:
    same_lane = stage.lane is not None and before.lane == stage.lane
    alone = stage.waits_ready or "queue" in stage.runtime.model_fields_set
    return same_lane and before.ordered and stage.ordered and not alone


def _bounds(stage: PlannedStage) -> str:
    queue = stage.runtime.queue
    return f"{queue.items} items" + ("" if queue.bytes is None else f", {queue.bytes / MIB:g} MiB")


def _line(stage: PlannedStage, *, fused: bool) -> str:
    facts = [f"{stage.stage_class.__module__}:{stage.stage_class.__qualname__}"]
    facts.append("source" if stage.is_source else f"effects {stage.stage_class.effects}")
    if stage.lane is not None:
        facts.append(f"lane {stage.lane}" + (", same visit" if fused else ""))
    return f"{'+ ' if fused else ''}{stage.name} ({'; '.join([*facts, *stage.runtime.policies()])})"
