"""Checkpoints: what a marker gathers on its way, written as one directory.

The rows come from a snapshot taken at the fence, so training may go on while they are written. Dense weights and the dense
optimizer are copied at the same fence.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch

from pipeline.files import RealFiles
from pipeline.flow import Marker
from pipeline.flow.run_info import RunInfo
from pipeline.models.arrays import dense_arrays
from pipeline.models.optimizer import DenseOptimizer
from pipeline.rowlog import CheckpointWriter
from pipeline.rows.spec import TableSpec
from pipeline.store import Snapshot, Store

CHUNK_ROWS = 65_536


class Checkpoints:
    """Freezes at the fence (compute lane) and writes later (any lane)."""

    def __init__(
        self,
        run: RunInfo,
        store: Store,
        specs: tuple[TableSpec, ...],
        model: torch.nn.Module,
        optimizer: DenseOptimizer,
        keep: int,
    ) -> None:
        self._run, self._store, self._specs = run, store, specs
        self._model, self._optimizer, self._keep = model, optimizer, keep

    def freeze(self, marker: Marker) -> None:
        """Pin the state at the current fence to ``marker``. On the compute lane."""
        self._store.fence.at(lambda: self._freeze(marker))

    def _freeze(self, marker: Marker) -> None:
        arrays, described = self._optimizer.state_arrays()
        marker.attachments.update(
            step=self._store.fence.step,
            snapshot=self._store.freeze("all", blocking=True, reason="checkpoint"),
            dense=dense_arrays(self._model),
            optimizer=(arrays, described),
        )

    def write(self, marker: Marker) -> Path:
        """Write the checkpoint of ``marker``, make it durable, and give the snapshot back. Blocks; returns its directory."""
        pinned = marker.attachments
        snapshot: Snapshot = pinned["snapshot"]
        directory = self._run.dir / "checkpoints"
        writer = CheckpointWriter(RealFiles(), str(directory), keep=self._keep)
        with snapshot:
            extra = {"run_id": self._run.run_id, "reason": marker.reason, "seed": self._run.seed}
            writer.begin(pinned["step"], self._run.generation, extra)
            for spec in self._specs:
                self._write_table(writer, snapshot, spec)
        arrays, described = pinned["optimizer"]
        writer.add_blob("dense.npz", npz_bytes(pinned["dense"]))
        writer.add_blob("dense_optimizer.npz", npz_bytes(arrays))
        writer.add_blob("dense_optimizer.json", json.dumps(described, sort_keys=True).encode())
        writer.add_blob("stages.msgpack", msgpack.packb(marker.states))
        return Path(writer.commit())

    def _write_table(self, writer: CheckpointWriter, snapshot: Snapshot, spec: TableSpec) -> None:
        ids = snapshot.ids(spec.name)
        writer.add_table(spec)
        for start in range(0, ids.shape[0], CHUNK_ROWS):
            chunk = ids[start : start + CHUNK_ROWS]
            rows = snapshot.read(spec.name, chunk)
            writer.add_rows(
                spec, chunk, np.ascontiguousarray(rows.rows_nb[:, : spec.layout.row_bytes]), rows.versions_n
            )


def npz_bytes(arrays: dict[str, Any]) -> bytes:
    """An uncompressed npz in memory; its bytes depend on the arrays alone."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
