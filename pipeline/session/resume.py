"""Going on from a checkpoint: rows into the tier, dense weights and optimizer, each stage's state.

Rules.

1. The checkpoint is the newest one that is whole; nothing it does not hold is trusted. What the tiers on disk held is made anew.
2. A row keeps the version that its last update gave it, whatever process that was.
3. Without any checkpoint a run starts over from its first step.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch

from pipeline.files import RealFiles
from pipeline.flow.run_info import ResumedFrom
from pipeline.models.arrays import load_dense_arrays
from pipeline.models.optimizer import DenseOptimizer
from pipeline.rowlog import CheckpointReader, NoCheckpoint
from pipeline.rows.spec import TableSpec
from pipeline.rows.version import MAX_STEP
from pipeline.session.errors import OtherCheckpoint
from pipeline.store import Store


@dataclass(slots=True)
class Resume:
    """What a resumed run goes on from. ``reader`` is None where there is no checkpoint."""

    reader: CheckpointReader | None
    states: Mapping[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> int:
        return 0 if self.reader is None else self.reader.manifest.step

    @staticmethod
    def newest(run_dir: Path) -> Resume:
        """Raises CheckpointCorrupt, OtherFormat."""
        try:
            reader = CheckpointReader.newest(RealFiles(), str(run_dir / "checkpoints"))
        except NoCheckpoint:
            return Resume(None)
        return Resume(reader, msgpack.unpackb(reader.blob("stages.msgpack"), strict_map_key=False))

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
                raise OtherCheckpoint(path, f"table {name!r} is {found[name]} there and {spec} here")

    def load_rows(self, store: Store) -> None:
        """Put all rows into the tier, and let the fence stand behind the checkpoint's step."""
        if self.reader is None:
            return
        for spec in store.specs:
            for ids_n, rows_nb, versions_n in self.reader.rows(spec.name):
                store.load_rows(spec.name, ids_n, rows_nb, versions_n)
        store.fence.begin_after(self.step)

    def load_dense(self, model: torch.nn.Module, optimizer: DenseOptimizer) -> None:
        if self.reader is not None:
            load_dense_arrays(model, _arrays(self.reader.blob("dense.npz")))
            described = json.loads(self.reader.blob("dense_optimizer.json"))
            optimizer.load_state_arrays(_arrays(self.reader.blob("dense_optimizer.npz")), described)

    def changed_after(self, step: int) -> dict[str, Any]:
        """Ids by table of the rows in the checkpoint that were last updated after ``step``. Reads all of it."""
        changed: dict[str, Any] = {}
        if self.reader is not None and step < self.step:
            for spec in self.reader.tables:
                ids = [ids_n[(versions_n & MAX_STEP) > step] for ids_n, _, versions_n in self.reader.rows(spec.name)]
                if ids:
                    changed[spec.name] = np.concatenate(ids)
        return {table: ids_n for table, ids_n in changed.items() if len(ids_n)}

    def told(self) -> ResumedFrom:
        """As stages see it."""
        return ResumedFrom(self.step, self.changed_after)


def _arrays(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
