"""Going on from a checkpoint: rows into the tier, dense weights and optimizer, each stage's state.

Rules.

1. The checkpoint is the newest that the catalog names; nothing it does not hold is trusted. A damaged one is refused, never passed
   over: an older one would go back behind what was published. Older ones that are damaged are forgotten, which is told.
2. A row keeps the version that its last update gave it, whatever process that was.
3. Without any checkpoint a run starts over from its first step.
4. Differences that were accepted make a fork: from the checkpoint on something else is computed.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch

from pipeline.files import Files, RealFiles
from pipeline.flow.run_info import ResumedFrom
from pipeline.models.arrays import load_dense_arrays
from pipeline.models.optimizer import DenseOptimizer
from pipeline.rowlog import CheckpointReader, RowLogError, read_catalog
from pipeline.rowlog.log import RowReads
from pipeline.rows.spec import TableSpec
from pipeline.rows.version import MAX_STEP
from pipeline.session.checkpoints import DYNAMIC
from pipeline.session.errors import OtherCheckpoint
from pipeline.store import Store


@dataclass(slots=True)
class Resume:
    """What a resumed run goes on from. ``reader`` is None where there is no checkpoint."""

    reader: CheckpointReader | None
    states: Mapping[str, Any] = field(default_factory=dict)
    checkpoints: Sequence[CheckpointReader] = ()
    """All that are whole, newest first."""
    damaged: Sequence[str] = ()
    """What was found wrong with older ones."""
    accepted: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the run so far and was accepted, by key."""

    @property
    def step(self) -> int:
        return 0 if self.reader is None else self.reader.manifest.step

    @property
    def note(self) -> dict[str, Any]:
        """What ``run.json`` tells of this generation."""
        fork = {"fork": {"step": self.step, "accepted": self.accepted}} if self.accepted else {}
        return {"resumed_from": self.step, **fork}

    @staticmethod
    def newest(run_dir: Path, files: Files | None = None, reads: Callable[[], RowReads] | None = None) -> Resume:
        """Raises CheckpointCorrupt, OtherFormat."""
        files, directory = files or RealFiles(), str(run_dir / "checkpoints")
        checkpoints: list[CheckpointReader] = []
        damaged: list[str] = []
        for name in read_catalog(files, directory):
            try:
                checkpoints.append(CheckpointReader(files, os.path.join(directory, name), reads))
            except (RowLogError, OSError) as error:
                if not checkpoints:
                    raise
                damaged.append(str(error))
        if not checkpoints:
            return Resume(None)
        states = msgpack.unpackb(checkpoints[0].blob("stages.msgpack"), strict_map_key=False)
        return Resume(checkpoints[0], states, checkpoints, damaged)

    def check(self, specs: tuple[TableSpec, ...]) -> None:
        """Raises OtherCheckpoint unless it holds just these tables."""
        if self.reader is None:
            return
        path = self.reader.path
        found = {spec.name: spec for spec in self.reader.tables}
        wanted = {spec.name: spec for spec in specs}
        if set(found) != set(wanted):
            raise OtherCheckpoint(path, f"it has the tables {sorted(found)}, the job has {sorted(wanted)}")
        for name, spec in wanted.items():
            if found[name] != spec:
                raise OtherCheckpoint(path, f"of table {name!r} {_differences(found[name], spec)}")

    def load_rows(self, store: Store) -> None:
        """Put all rows into the tier."""
        if self.reader is None:
            return
        for spec in store.specs:
            for ids_n, rows_nb, versions_n in self.reader.rows(spec.name):
                store.load_rows(spec.name, ids_n, rows_nb, versions_n)

    def load_dynamic(self, store: Store) -> None:
        if self.reader is not None and store.dynamic is not None:
            store.dynamic.restore(_arrays(self.reader.blob(DYNAMIC)))

    def load_dense(self, model: torch.nn.Module, optimizer: DenseOptimizer) -> None:
        if self.reader is not None:
            load_dense_arrays(model, _arrays(self.reader.blob("dense.npz")))
            described = json.loads(self.reader.blob("dense_optimizer.json"))
            optimizer.load_state_arrays(_arrays(self.reader.blob("dense_optimizer.npz")), described)

    def changed_after(self, step: int) -> dict[str, Any]:
        """Ids by table of the rows in the checkpoint that were last updated after ``step``."""
        changed: dict[str, Any] = {}
        if self.reader is not None and step < self.step:
            for spec in self.reader.tables:
                pairs = self.reader.versions(spec.name)
                ids = [ids_n[(versions_n & MAX_STEP) > step] for ids_n, versions_n in pairs]
                if ids:
                    changed[spec.name] = np.sort(np.concatenate(ids))
        return {table: ids_n for table, ids_n in changed.items() if len(ids_n)}

    def told(self) -> ResumedFrom:
        """As stages see it."""
        return ResumedFrom(self.step, self.changed_after)


def _differences(there: TableSpec, here: TableSpec) -> str:
    """What differs between two specs of one table, for people."""
    pairs = {
        "dim": (there.dim, here.dim),
        "columns": (_columns(there), _columns(here)),
        "initial rows": (there.initializer, here.initializer),
        "seed": (there.seed, here.seed),
        "default row": (there.default, here.default),
    }
    return "; ".join(f"{what} was {old} and is {new}" for what, (old, new) in pairs.items() if old != new)


def _columns(spec: TableSpec) -> str:
    return ", ".join(f"{one.name} {one.dtype}[{one.width}]" for one in spec.layout.columns)


def _arrays(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
