"""Rows as a state dict, and back; checkpoints as a beginning.

A state dict has, for each table, the rows that were ever updated, by rising id, as tensors: TABLE.ids [n], TABLE.steps [n] of their last
updates, TABLE.weight [n, dim] and each optimizer state [n, width]; and ``_extra_state`` with the step and what else the rows follow from.
Rows never updated follow from the seed. A row gets the generation of the module it comes into: that is printed, never compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.modules.engine import Engine
from pipeline.modules.errors import BadState, NotFresh, StateTooLarge
from pipeline.rowlog import RowLogError
from pipeline.rows.layout import RowLayout
from pipeline.rows.spec import TableSpec
from pipeline.rows.version import MAX_STEP, pack_version
from pipeline.session.errors import SessionError
from pipeline.session.inspect_rows import newest_checkpoint
from pipeline.session.resume import Resume

EXTRA = "_extra_state"
CHUNK_ROWS = 65_536
IDS, STEPS = "ids", "steps"


def gather_state(engine: Engine, prefix: str, limit: int) -> dict[str, Any]:
    """Raises StateTooLarge before anything is copied."""
    found: dict[str, Any] = engine.on_compute(_gather, engine, prefix, limit)
    return found


def _gather(engine: Engine, prefix: str, limit: int) -> dict[str, Any]:
    specs = engine.plan.specs
    with engine.store.freeze("all", blocking=True, reason="state_dict") as snapshot:
        ids = {spec.name: snapshot.ids(spec.name) for spec in specs}
        nbytes = sum(len(ids[spec.name]) * (spec.layout.row_bytes + 16) for spec in specs)
        if nbytes > limit:
            raise StateTooLarge(nbytes, limit)
        state: dict[str, Any] = {}
        for spec in specs:
            for key, tensor in _columns(spec, snapshot, ids[spec.name]):
                state[f"{prefix}{spec.name}.{key}"] = tensor
        state[prefix + EXTRA] = {"step": snapshot.step, "tables": {spec.name: _told(spec) for spec in specs}}
    return state


def _columns(spec: TableSpec, snapshot: Any, ids_n: Any) -> Iterator[tuple[str, torch.Tensor]]:
    steps_n = np.empty(len(ids_n), np.int64)
    columns = {one.name: np.empty((len(ids_n), one.width), one.dtype) for one in spec.layout.columns}
    for start in range(0, len(ids_n), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        rows = snapshot.read(spec.name, ids_n[part])
        steps_n[part] = rows.versions_n & MAX_STEP
        for name, values in columns.items():
            values[part] = spec.layout.view(rows.rows_nb, name)
    yield IDS, torch.from_numpy(np.ascontiguousarray(ids_n))
    yield STEPS, torch.from_numpy(steps_n)
    for name, values in columns.items():
        yield name, torch.from_numpy(values)


def _told(spec: TableSpec) -> dict[str, Any]:
    """What rows of a table follow from that is not in them."""
    return {"seed": spec.seed, "init": asdict(spec.initializer)}


@dataclass(slots=True)
class FoundState:
    """A state dict's part for one module. Nothing was changed yet; with ``missing`` or ``wrong`` nothing may be."""

    step: int = 0
    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Columns by table."""
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def read_state(engine: Engine, state: Mapping[str, Any], prefix: str) -> FoundState:
    found, known = FoundState(), {prefix + EXTRA}
    extra = state.get(prefix + EXTRA)
    if extra is None:
        found.missing.append(prefix + EXTRA)
    for spec in engine.plan.specs:
        names = [IDS, STEPS, *(column.name for column in spec.layout.columns)]
        keys = {name: f"{prefix}{spec.name}.{name}" for name in names}
        known.update(keys.values())
        lacking = [key for key in keys.values() if key not in state]
        found.missing.extend(lacking)
        if lacking or extra is None:
            continue
        found.arrays[spec.name] = {name: state[key] for name, key in keys.items()}
        found.wrong.extend(f"{prefix}{spec.name}: {what}" for what in _faults(spec, found.arrays[spec.name], extra))
    found.unexpected = [key for key in state if key.startswith(prefix) and key not in known]
    found.step = 0 if extra is None else int(extra["step"])
    return found


def _faults(spec: TableSpec, arrays: Mapping[str, Any], extra: Mapping[str, Any]) -> Iterator[str]:
    told = extra["tables"].get(spec.name)
    if told != _told(spec):
        yield f"rows never updated would differ: it has {told}, the module {_told(spec)}"
    count = len(arrays[IDS])
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {IDS: ("int64", ()), STEPS: ("int64", ())}
    wanted |= {column.name: (column.dtype, (column.width,)) for column in spec.layout.columns}
    fits = True
    for name, (dtype, width) in wanted.items():
        tensor = arrays[name]
        if str(tensor.dtype) != f"torch.{dtype}" or tuple(tensor.shape) != (count, *width):
            fits = False
            yield f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; torch.{dtype} of {(count, *width)} is needed"
    if fits and len(torch.unique(arrays[IDS])) != count:
        yield "an id occurs twice"
    if fits and count and not bool(((arrays[STEPS] >= 1) & (arrays[STEPS] <= int(extra["step"]))).all()):
        yield f"steps of updates lie outside 1 .. {extra['step']}"


def put_state(engine: Engine, found: FoundState) -> None:
    """Raises NotFresh; then nothing was changed."""
    _check_fresh(engine, "a state dict")
    for spec in engine.plan.specs:
        arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in found.arrays[spec.name].items()}
        for start in range(0, len(arrays[IDS]), CHUNK_ROWS):
            part = {name: values[start : start + CHUNK_ROWS] for name, values in arrays.items()}
            engine.on_compute(_put, engine, spec, part[IDS], _packed(spec.layout, part), part[STEPS])
    _begin(engine, found.step, {name: arrays[IDS].numpy() for name, arrays in found.arrays.items()})


def _packed(layout: RowLayout, columns: Mapping[str, Any]) -> Any:
    rows_nb = layout.empty(len(columns[IDS]))
    for column in layout.columns:
        layout.view(rows_nb, column.name)[:] = columns[column.name]
    return rows_nb


def load_checkpoint(engine: Engine, path: Path) -> None:
    """Raises NotFresh and BadState, and what reading raises; then nothing but rows that a fresh start overwrites was put."""
    _check_fresh(engine, "a checkpoint")
    try:
        newest_checkpoint(path)
        resume = Resume.newest(path)
        resume.check(engine.plan.specs)
    except (SessionError, RowLogError) as error:
        raise BadState(str(error)) from error
    assert resume.reader is not None
    loaded: dict[str, list[Any]] = {spec.name: [] for spec in engine.plan.specs}
    for spec in engine.plan.specs:
        for ids_n, rows_nb, versions_n in resume.reader.rows(spec.name):
            loaded[spec.name].append(np.array(ids_n) if engine.streaming is not None else ids_n[:0])
            engine.on_compute(_put, engine, spec, ids_n, rows_nb, versions_n & MAX_STEP)
    empty = np.empty(0, np.int64)
    _begin(engine, resume.step, {name: np.concatenate([empty, *parts]) for name, parts in loaded.items()})


def _put(engine: Engine, spec: TableSpec, ids_n: Any, rows_nb: Any, steps_n: Any) -> None:
    versions_n = pack_version(engine.run.generation, 0) | steps_n
    engine.store.load_rows(spec.name, np.ascontiguousarray(ids_n), rows_nb, versions_n)


def _begin(engine: Engine, step: int, ids: dict[str, Any]) -> None:
    if step:
        engine.on_compute(engine.store.fence.begin_after, step)
    if engine.streaming is not None and step:
        engine.streaming.add_loaded(step, {name: ids_n for name, ids_n in ids.items() if len(ids_n)})


def _check_fresh(engine: Engine, what: str) -> None:
    if engine.used:
        raise NotFresh(what, f"this one is at step {engine.step}")
