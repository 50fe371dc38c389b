"""Checkpoints: what a marker gathers on its way, written behind training's back.

At the fence (``freeze``): a snapshot of the rows, a mark in the row log, copies of the dense weights and of the dense optimizer.
Later (``write``): rows that changed since the last checkpoint and that the log does not have yet are saved to it; then the manifest
names the log's segments. So what a checkpoint costs is what changed, not what there is.

The log is that of the SSD tier where there is one; else one of the checkpoints' own, which gets rows from nobody else.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch

from pipeline.files import Files
from pipeline.flow import Marker
from pipeline.flow.run_info import RunInfo
from pipeline.models.arrays import dense_arrays
from pipeline.models.optimizer import DenseOptimizer
from pipeline.rowlog import CheckpointWriter
from pipeline.rowlog.log import Mark, RowLog
from pipeline.rows.version import pack_version
from pipeline.session.copies import Copies
from pipeline.session.retention import Retention
from pipeline.store import Store, save_changed

CHECKPOINT, DYNAMIC = "checkpoint", "dynamic.npz"
PAUSES_KEPT = 1024


class Checkpoints:
    """Freezes at the fence (compute lane) and writes later (any lane), one checkpoint at a time.

    ``since``: the packed version of the checkpoint that the log began with; 0 where it began with none.
    """

    def __init__(
        self,
        run: RunInfo,
        store: Store,
        log: RowLog,
        model: torch.nn.Module,
        optimizer: DenseOptimizer,
        files: Files,
        retention: Retention,
        since: int,
        copies: Copies | None = None,
    ) -> None:
        self._run, self._store, self._log, self._files = run, store, log, files
        self._model, self._optimizer, self._retention, self._since = model, optimizer, retention, since
        self._copies = copies
        self._idle = asyncio.Event()
        self._idle.set()
        self.skipped = 0
        """Markers that came while a checkpoint was still being written."""
        self.saved_rows = 0
        self.written = 0
        self.pauses_s: deque[float] = deque(maxlen=PAUSES_KEPT)
        """How long training stood still for each of the last checkpoints."""

    async def turn(self, marker: Marker) -> bool:
        """Whether ``marker`` is to become a checkpoint. One of those that come every so often gives way while another is being
        written; the last one of a run waits. On the event loop.
        """
        if marker.reason == CHECKPOINT and not self._idle.is_set():
            self.skipped += 1
            return False
        await self._idle.wait()
        self._idle.clear()
        return True

    def freeze(self, marker: Marker) -> None:
        """Pin the state at the current fence to ``marker``. On the compute lane, after ``turn``."""
        began = time.perf_counter()
        self._store.fence.at(lambda: self._freeze(marker))
        self.pauses_s.append(time.perf_counter() - began)

    def _freeze(self, marker: Marker) -> None:
        arrays, described = self._optimizer.state_arrays()
        marker.attachments.update(
            step=self._store.fence.step,
            snapshot=self._store.freeze("all", blocking=True, reason="checkpoint"),
            mark=self._log.mark(),
            dense=dense_arrays(self._model),
            optimizer=(arrays, described),
        )

    def done(self, marker: Marker) -> None:
        """The checkpoint of ``marker`` was written, or will not be. On the event loop."""
        if "mark" in marker.attachments:
            self._idle.set()

    def write(self, marker: Marker) -> Path | None:
        """Write the checkpoint of ``marker`` and make it durable. Blocks; returns its directory, None for one that gave way."""
        pinned = marker.attachments
        if "mark" not in pinned:
            return None
        mark: Mark = pinned["mark"]
        try:
            with pinned["snapshot"] as snapshot:
                self.saved_rows += save_changed(self._store, snapshot, mark, self._since)
            saved, held = mark.seal()
        except BaseException:
            mark.abandon()
            raise
        writer = CheckpointWriter(self._files, str(self._run.dir / "checkpoints"), keep=self._retention.keep)
        extra = {"run_id": self._run.run_id, "reason": marker.reason, "seed": self._run.seed}
        writer.begin(pinned["step"], self._run.generation, extra)
        for spec in self._store.specs:
            writer.add_table(spec, saved.tables[spec.name])
        dense, optimizer = marker.attachments["dense"], marker.attachments["optimizer"]
        for name, data in blobs(dense, optimizer, marker.states).items():
            writer.add_blob(name, data)
        if "dynamic" in pinned:
            writer.add_blob(DYNAMIC, npz_bytes(pinned["dynamic"]))
        path = Path(writer.commit())
        self._since = pack_version(self._run.generation, pinned["step"])
        self.written += 1
        if self._copies is not None:
            self._copies.take(path)
        self._retention.committed(path.name, held, writer.names)
        return path

    def stats(self) -> Mapping[str, Any]:
        """Figures for the report."""
        longest = max(self.pauses_s, default=0.0)
        figures = {"written": self.written, "skipped": self.skipped, "saved_rows": self.saved_rows}
        return {**figures, "longest_pause_ms": round(1e3 * longest, 3)}


def blobs(dense: dict[str, Any], optimizer: tuple[dict[str, Any], Any], states: Mapping[str, Any]) -> dict[str, bytes]:
    """What a checkpoint holds beside rows: dense weights, arrays and description of their optimizer, states of the stages."""
    arrays, described = optimizer
    return {
        "dense.npz": npz_bytes(dense),
        "dense_optimizer.npz": npz_bytes(arrays),
        "dense_optimizer.json": json.dumps(described, sort_keys=True).encode(),
        "stages.msgpack": msgpack.packb(dict(states)),
    }


def npz_bytes(arrays: dict[str, Any]) -> bytes:
    """An uncompressed npz in memory; its bytes depend on the arrays alone."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
