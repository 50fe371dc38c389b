"""What can be wrong with planned stages, one by one and side by side. Each check returns the problems it found."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from pipeline.flow.errors import Problem
from pipeline.flow.graph import PlannedStage
from pipeline.flow.nearest import listed, nearest
from pipeline.flow.stage import Source, Stage


def check_contract(stage: PlannedStage, resources: Collection[str] | None) -> list[Problem]:
    """What one stage says of itself: that it can work, what it needs, and what may be asked of it."""
    path = f"stages.{stage.name}"
    problems = _check_methods(stage, path)
    policies = stage.runtime.policies()
    if policies and (stage.ordered or stage.is_source):
        problems.append(
            Problem(
                path,
                f"{', '.join(policies)}: for stages with effects none only; {_title(stage)} {_effects(stage)}",
            )
        )
    if stage.is_source and "queue" in stage.runtime.model_fields_set:
        problems.append(Problem(f"{path}.queue", "a source has no input channel; bound the one of the stage behind it"))
    for need in stage.stage_class.needs:
        if resources is not None and need not in resources:
            known = f"{nearest(need, resources)} Resources: {listed(resources)}"
            problems.append(Problem(path, f"{_title(stage)} needs {need!r}, which nobody opens{known}"))
    return problems


def check_order(stages: Sequence[PlannedStage]) -> list[Problem]:
    """A source first, and nowhere else."""
    if not stages:
        return [Problem("stages", "the graph is empty; the least is one source")]
    problems = []
    if not stages[0].is_source:
        what = f"comes first, but {_title(stages[0])} is no source; a subclass of pipeline.flow.Source must"
        problems.append(Problem(f"stages.{stages[0].name}", what))
    for stage in stages[1:]:
        if stage.is_source:
            what = f"{_title(stage)} is a source, and a source comes first; {stages[0].name!r} does"
            problems.append(Problem(f"stages.{stage.name}", what))
    return problems


def check_types(stages: Sequence[PlannedStage]) -> list[Problem]:
    """What a stage produces must be what the next one consumes."""
    problems = []
    for before, stage in pairwise(stages):
        produced, consumed = before.stage_class.produces, stage.stage_class.consumes
        if not _meets(produced, consumed):
            what = f"consumes {consumed.__name__}, but {before.name!r} in front of it produces {produced.__name__}"
            if produced is object:
                what += f" (it sets no `produces`; {before.stage_class.__name__} can set it)"
            problems.append(Problem(f"stages.{stage.name}", what))
    return problems


def _check_methods(stage: PlannedStage, path: str) -> list[Problem]:
    found = stage.stage_class
    if issubclass(found, Source):
        return (
            []
            if found.items is not Source.items
            else [Problem(path, f"{_title(stage)} is a source without an items method")]
        )
    if found.lane is not None and found.work is Stage.work:
        return [Problem(path, f"{_title(stage)} names lane {found.lane!r} but has no work method")]
    if found.lane is None and found.process is Stage.process:
        return [Problem(path, f"{_title(stage)} has no process method, and no lane with a work method either")]
    return []


def _meets(produced: type, consumed: type) -> bool:
    try:
        return issubclass(produced, consumed)
    except TypeError:
        # A parametrised type or a Protocol with data cannot be asked; only the very same one meets it.
        return produced is consumed


def _title(stage: PlannedStage) -> str:
    return stage.stage_class.__name__


def _effects(stage: PlannedStage) -> str:
    return "is a source" if stage.is_source else f"has effects {stage.stage_class.effects}"
