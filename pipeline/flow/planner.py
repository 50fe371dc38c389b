"""From the stages of a config to a graph that can run. Pure: it imports the classes and starts nothing.

All problems are gathered, so that one look at the message mends the whole config.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.flow.checks import check_contract, check_order, check_types
from pipeline.flow.errors import GraphError, Problem
from pipeline.flow.graph import Graph, PlannedStage, StageNode, group_visits
from pipeline.flow.option_faults import problems_of
from pipeline.flow.registry import find_stage
from pipeline.flow.runtime_options import RUNTIME_KEYS, RuntimeOptions
from pipeline.flow.stage import Stage

NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
HEAD_KEYS = ("use", "enabled")
Nodes = Sequence[StageNode] | Mapping[str, Mapping[str, Any] | None]


def plan(
    nodes: Nodes, *, resources: Collection[str] | None = None, find: Callable[[str], type[Stage]] = find_stage
) -> Graph:
    """Check the stages, in order, and group them. ``resources`` are the names a stage may need; None leaves that
    unchecked.

    Raises GraphError with everything that is wrong, each with its key path.
    """
    listed_nodes = [StageNode.of(*entry) for entry in nodes.items()] if isinstance(nodes, Mapping) else list(nodes)
    problems = _check_names(listed_nodes)
    stages: list[PlannedStage] = []
    for node in listed_nodes:
        stage = _plan_stage(node, problems, find)
        if stage is not None:
            problems += check_contract(stage, resources)
            stages.append(stage)
    if not problems:
        problems += check_order(stages) or check_types(stages)
    if problems:
        raise GraphError(problems)
    return Graph(tuple(stages), group_visits(tuple(stages)))


def _check_names(nodes: Sequence[StageNode]) -> list[Problem]:
    problems: list[Problem] = []
    seen: set[str] = set()
    for node in nodes:
        if NAME.fullmatch(node.name) is None:
            problems.append(
                Problem("stages", f"{node.name!r} cannot be a name: letters, digits, '_', '.' and '-', at most 128")
            )
        if node.name in seen:
            problems.append(
                Problem(f"stages.{node.name}", "two stages have this name; `use` names the class, the key is free")
            )
        seen.add(node.name)
    return problems


def _plan_stage(node: StageNode, problems: list[Problem], find: Callable[[str], type[Stage]]) -> PlannedStage | None:
    """None when the stage is disabled or wrong; what is wrong goes to ``problems``."""
    path = f"stages.{node.name}"
    given = {str(key): value for key, value in node.options.items()}
    head = _validate(RuntimeOptions, {key: given[key] for key in HEAD_KEYS if key in given}, path, problems, ())
    if head is None:
        return None
    stage_class = _find_class(node, head, problems, find) if head.enabled else None
    # A source has policies of its own for what it reads; the keys then are its options.
    own = () if stage_class is None else set(stage_class.Options.model_fields) - set(HEAD_KEYS)
    keys = [key for key in RUNTIME_KEYS if key in given and key not in own]
    runtime = _validate(RuntimeOptions, {key: given.pop(key) for key in keys}, path, problems, ())
    if runtime is None or stage_class is None:
        return None
    options = _validate(stage_class.Options, given, path, problems, RUNTIME_KEYS)
    if options is None:
        return None
    return PlannedStage(node.name, node.use or runtime.use or node.name, stage_class, options, runtime)


def _find_class(
    node: StageNode, head: RuntimeOptions, problems: list[Problem], find: Callable[[str], type[Stage]]
) -> type[Stage] | None:
    path, use = f"stages.{node.name}", node.use or head.use or node.name
    try:
        return find(use)
    except GraphError as error:
        problems.append(Problem(path if use == node.name else f"{path}.use", str(error)))
        return None


def _validate(
    model: type[BaseModel], given: Mapping[str, Any], path: str, problems: list[Problem], more_keys: Sequence[str]
) -> Any:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems.extend(problems_of(error, model, path, more_keys))
        return None
