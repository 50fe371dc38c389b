"""From a validated config to everything that is known before a run: a pure step that refuses what cannot run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np

from cuda.backend import UpdateRule
from cuda.choose import check_device, check_rule
from cuda.errors import BackendUnavailable, RuleUnavailable
from cuda.plan import POOLINGS, FeatureSet
from pipeline.config import Loaded
from pipeline.flow import Graph, GraphError, StageNode, plan
from pipeline.models.errors import ModelError
from pipeline.models.optimizer import build_optimizer
from pipeline.models.schedules import Schedule, build_schedule
from pipeline.optim import layout_of, rule_of
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.session.dense_side import initial_model
from pipeline.session.errors import L1SmallerThanBatch
from pipeline.session.hooks import problems
from pipeline.session.meta_columns import meta_places, meta_problems, with_meta
from pipeline.session.settings import Settings, TableSettings, dynamic_tables
from pipeline.session.tier_sizes import check_tiers
from pipeline.store import AdmissionRule, DynamicTables, ExpiryRule

RESOURCES = (
    "backend",
    "store",
    "features",
    "table_names",
    "model",
    "dense_optimizer",
    "metrics",
    "eval_results",
    "checkpoints",
    "row_source",
    "stream_report",
    "files",
    "run",
    "step_limit",
    "say",
)
"""What a stage may name in ``needs``."""
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Plan:
    """What a config says, worked out. ``specs``, ``rules`` and ``rates`` are in the order of ``settings.tables``."""

    settings: Settings
    graph: Graph
    specs: tuple[TableSpec, ...]
    rules: tuple[UpdateRule, ...]
    rates: tuple[Schedule | None, ...]
    """None: constant."""
    features: FeatureSet
    num_dense: int
    """Dense columns of a sample, as the source's options say."""
    tree: dict[str, Any]

    @property
    def dynamic(self) -> DynamicTables | None:
        """A new one; None where no table is dynamic."""
        tables = self.settings.tables
        if not dynamic_tables(tables):
            return None
        admissions = [_admission(table) for table in tables.values()]
        expiries = [None if one.expiry is None else ExpiryRule(**one.expiry.model_dump()) for one in tables.values()]
        return DynamicTables(tuple(tables), admissions, expiries)


def make_plan(loaded: Loaded[Settings]) -> Plan:
    """Raises ConfigError or SessionError: nothing was started."""
    settings = loaded.settings
    _check_device(loaded)
    graph = _graph(loaded)
    _check_l1(settings, graph)
    _check_features(loaded, graph)
    _refuse(loaded, meta_problems(settings, graph))
    _refuse(loaded, problems(settings.hooks, settings.tables))
    specs = tuple(_spec(name, settings) for name in settings.tables)
    made = Plan(
        settings=settings,
        graph=graph,
        specs=specs,
        rules=_rules(settings),
        rates=tuple(_rate(table) for table in settings.tables.values()),
        features=_features(settings, specs),
        num_dense=int(getattr(graph.stages[0].options, "num_dense", 0)),
        tree=loaded.tree,
    )
    _check_rules(made, loaded)
    _check_stages(made, loaded)
    check_tiers(made.specs, [table.max_rows for table in settings.tables.values()], settings.store, loaded)
    _check_dense_side(made, loaded)
    return made


def plan_of_rows(settings: Settings) -> Plan:
    """The plan of a job without stages: whoever has a loop of their own drives its store.

    Raises BackendUnavailable and RuleUnavailable.
    """
    check_device(settings.device)
    specs = tuple(_spec(name, settings) for name in settings.tables)
    made = Plan(
        settings=settings,
        graph=Graph((), ()),
        specs=specs,
        rules=_rules(settings),
        rates=tuple(_rate(table) for table in settings.tables.values()),
        features=_features(settings, specs),
        num_dense=0,
        tree=settings.model_dump(mode="json"),
    )
    for spec, rule in zip(made.specs, made.rules, strict=True):
        check_rule(settings.device, spec, rule)
    return made


def _graph(loaded: Loaded[Settings]) -> Graph:
    nodes = [StageNode.of(name, options) for name, options in loaded.settings.stages.items()]
    try:
        return plan(nodes, resources=RESOURCES)
    except GraphError as error:
        raise loaded.error((problem.path, problem.what) for problem in error.problems) from error


def _spec(name: str, settings: Settings) -> TableSpec:
    table = settings.tables[name]
    return TableSpec(
        name=name,
        layout=with_meta(layout_of(table.optimizer, table.dim, DTYPES[table.weights], DTYPES[table.states]), table),
        initializer=Initializer(**table.init.model_dump()),
        seed=settings.run.seed,
        default=None if table.admission is None else table.admission.default,
    )


def _admission(table: TableSettings) -> AdmissionRule | None:
    asked = table.admission
    return None if asked is None else AdmissionRule(asked.after, int(asked.bytes))


def _rules(settings: Settings) -> tuple[UpdateRule, ...]:
    return tuple(replace(rule_of(table.optimizer), rounding=table.rounding) for table in settings.tables.values())


def _rate(table: TableSettings) -> Schedule | None:
    wanted = table.schedule
    if wanted.use == "constant" and not wanted.warmup_steps:
        return None
    return build_schedule(wanted.use, wanted.options, wanted.warmup_steps)


def _features(settings: Settings, specs: Sequence[TableSpec]) -> FeatureSet:
    tables = list(settings.tables)
    names = tuple(settings.features)
    return FeatureSet(
        names=names,
        tables_f=np.array([tables.index(settings.table_of(name)) for name in names], dtype=np.int32),
        dims_f=np.array([settings.tables[settings.table_of(name)].dim for name in names], dtype=np.int32),
        poolings_f=np.array([POOLINGS[settings.features[name].pooling] for name in names], dtype=np.int32),
        num_tables=len(tables),
        meta_t=meta_places(specs),
    )


def _check_l1(settings: Settings, graph: Graph) -> None:
    for stage in graph.stages:
        max_ids = getattr(stage.options, "max_ids", None)
        if max_ids is not None and settings.store.l1_rows < max_ids:
            raise L1SmallerThanBatch(settings.store.l1_rows, stage.name, max_ids)


def _check_features(loaded: Loaded[Settings], graph: Graph) -> None:
    """Every feature has its ids from the source, where that says what it yields and no stage of a user's own adds any."""
    yielded = getattr(graph.stages[0].options, "features", None)
    before = list(takewhile(lambda stage: "features" not in stage.stage_class.needs, graph.stages))
    if not isinstance(yielded, dict) or any(not stage.stage_class.__module__.startswith("stages.") for stage in before):
        return
    missing = [name for name in loaded.settings.features if name not in yielded]
    if missing:
        what = f"the source yields no feature of this name; it yields {', '.join(yielded)}"
        raise loaded.error((f"features.{name}", what) for name in missing)


def _refuse(loaded: Loaded[Settings], problems: Iterable[tuple[str, str]]) -> None:
    found = list(problems)
    if found:
        raise loaded.error(found)


def _check_device(loaded: Loaded[Settings]) -> None:
    try:
        check_device(loaded.settings.device)
    except BackendUnavailable as error:
        raise loaded.error([("device", str(error))]) from error


def _check_rules(made: Plan, loaded: Loaded[Settings]) -> None:
    for spec, rule in zip(made.specs, made.rules, strict=True):
        try:
            check_rule(made.settings.device, spec, rule)
        except RuleUnavailable as error:
            raise loaded.error([(f"tables.{spec.name}.optimizer", str(error))]) from error


def _check_stages(made: Plan, loaded: Loaded[Settings]) -> None:
    """What options of stages say of tables is asked of those that have something to say (``table_problems``)."""
    for stage in made.graph.stages:
        problems = getattr(stage.options, "table_problems", None)
        found = [] if problems is None else list(problems(made.specs))
        if found:
            raise loaded.error((f"stages.{stage.name}.{key}", what) for key, what in found)


def _check_dense_side(made: Plan, loaded: Loaded[Settings]) -> None:
    """Build the model and its optimizer once, to see that they can be: a run makes its own."""
    key = "model"
    try:
        model = initial_model(made)
        key = "dense_optimizer"
        build_optimizer(model, made.settings.dense_optimizer)
    except ModelError as error:
        raise loaded.error([(key, str(error))]) from error
