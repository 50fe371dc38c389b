"""Runs whole jobs for tests, in this process, with the loop guard on, and reads what they left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.config import load
from pipeline.files import RealFiles
from pipeline.flow.run_info import RunInfo
from pipeline.rowlog import CheckpointReader, export_dense, export_table
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.session import environment
from pipeline.session.commands import look_for_resume
from pipeline.session.disk import Disk
from pipeline.session.inspect_rows import newest_checkpoint
from pipeline.session.plan import Plan, make_plan
from pipeline.session.resources import Resources
from pipeline.session.resume import Resume
from pipeline.session.rundir import claim, claim_again, died_unborn
from pipeline.session.settings import Settings
from pipeline.session.trainer import Trainer
from tests.support.loop_guard import LoopGuard

RAGGED: dict[str, Any] = {
    "run": {"seed": 3, "threads": 2},
    "tables": {
        "shared": {"dim": 8, "optimizer": {"kind": "rowwise_adagrad", "lr": 0.1}},
        "wide": {"dim": 16, "optimizer": {"kind": "rowwise_adagrad", "lr": 0.1}},
    },
    "features": {"a": {"table": "shared"}, "b": {"table": "shared"}, "wide": {}},
    "model": {"use": "tests.e2e.tiny_model:TinyModel"},
    "dense_optimizer": {"use": "Adagrad", "lr": 0.05},
    "store": {"l1_rows": 200},
    "replica": {"embedded": False},
    "stages": {
        "source": {"use": "tests.e2e.ragged:RaggedSource", "features": ["a", "b", "wide"]},
        "distinct": {},
        "prefetch": {"lookahead": 2},
        "lookup": {},
        "train": {},
        "update": {},
        "evict": {},
        "score": {},
        "stream": {"every": "3 steps", "codec": "fp32", "dense": True},
    },
}


Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Job:
    dir: Path
    summary: dict[str, Any]
    trainer: Trainer
    _exported: dict[str, dict[str, Arrays]] = field(default_factory=dict, compare=False, repr=False)

    def least_l1(self) -> int:
        """The most distinct rows that one step needed."""
        return int(self.trainer.resources.totals.most_rows)  # type: ignore[union-attr]

    def tables(self) -> dict[str, Arrays]:
        """Every table as ``export`` writes it. What a checkpoint gave is kept: many runs are compared with one."""
        reader = CheckpointReader.newest(RealFiles(), str(self.dir / "checkpoints"), one_thread_reads)
        written = f"{reader.path} {os.stat(reader.path).st_ino}"
        if written not in self._exported:
            self._exported[written] = {name: self._export(reader, name) for name in self.summary["tables"]}
        return {name: dict(arrays) for name, arrays in self._exported[written].items()}

    def _export(self, reader: CheckpointReader, name: str) -> Arrays:
        out = self.dir.parent / f"{self.dir.name}-{name}.npz"
        export_table(reader, name, str(out))
        with np.load(out) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def dense(self) -> Arrays:
        out = self.dir.parent / f"{self.dir.name}-dense.npz"
        export_dense(newest_checkpoint(self.dir), str(out))
        with np.load(out) as arrays:
            return {key: arrays[key] for key in arrays.files}


def one_thread_reads() -> RealReads:
    """For tables so small that to start many threads takes longer than all they read."""
    return RealReads(1, False)


def run_job(
    directory: Path,
    config: Mapping[str, Any] | str,
    *overrides: str,
    perturb: Any = None,
    on_step: Callable[[int], None] | None = None,
    on_open: Callable[[Resources], None] | None = None,
    resume: bool = False,
    disk: Disk | None = None,
    accept: Sequence[str] = (),
) -> Job:
    """Run ``config`` (a mapping, or the name of one) in ``directory``; ``on_step`` is called at each step's end.

    ``resume``: go on with the run that is there, whatever differs; with ``accept`` what differs must be named.
    """
    source = str(config)
    if not isinstance(config, str):
        source = str(directory.with_suffix(".yaml"))
        Path(source).write_text(yaml.safe_dump(dict(config), sort_keys=False))
    plan = make_plan(load([source], [f"run.dir={directory}", *overrides], Settings))
    with _claimed(directory, plan, resume, accept, disk or Disk()) as (info, going_on), LoopGuard():
        trainer = Trainer(plan, info, resume=going_on, perturb=perturb, handle_signals=False, disk=disk)
        if on_step is not None:
            trainer.on_open.append(lambda resources: resources.store.on_step(lambda step, _plan: on_step(step)))
        if on_open is not None:
            trainer.on_open.append(on_open)
        _, summary = trainer.train()
    return Job(directory, summary, trainer)


@contextmanager
def _claimed(
    directory: Path, plan: Plan, resume: bool, accept: Sequence[str], disk: Disk
) -> Iterator[tuple[RunInfo, Resume | None]]:
    record = {"environment": environment.record(plan.settings.run.threads), "config": plan.tree}
    if not resume or died_unborn(directory):
        with claim(directory, seed=plan.settings.run.seed, record=record, overwrite=False, files=disk.files) as info:
            yield info, None
        return
    checked = partial(look_for_resume, plan, record, accept)
    look = checked if accept else lambda _: Resume.newest(directory)
    with claim_again(directory, look, record=record, files=disk.files) as claimed:
        yield claimed


def assert_same_bits(one: Job, other: Job) -> None:
    """Tables, states, steps of versions and dense weights are equal bit for bit. The generation is not compared."""
    left, right = one.tables(), other.tables()
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].keys() == right[name].keys()
        for key, values in left[name].items():
            other_values = right[name][key]
            if key == "version":
                values, other_values = values[:, 1], other_values[:, 1]
            assert values.shape == other_values.shape, (name, key)
            assert values.tobytes() == other_values.tobytes(), f"{name}.{key} differs"
    left_dense, right_dense = one.dense(), other.dense()
    assert left_dense.keys() == right_dense.keys()
    for key, values in left_dense.items():
        assert values.tobytes() == right_dense[key].tobytes(), f"dense {key} differs"
