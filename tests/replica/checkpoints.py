"""Checkpoints of a trainer made of dicts, as a run writes them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import RealFiles
from pipeline.rowlog import CheckpointWriter
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.rows.spec import TableSpec
from tests.replica.trainer import DictTrainer, column_of


def write_checkpoint(trainer: DictTrainer, directory: str) -> str:
    """Of the model as it stands, in a directory of its own; returns that of the checkpoint."""
    log = RowLog([f"{directory}/rows"], RealFiles(), lambda: RealReads(1, False), RowLogOptions())
    log.open(list(trainer.specs.values()))
    try:
        for name, rows in trainer.model.items():
            ids, versions = list(rows), [version for _, version in rows.values()]
            weights = [trainer.exact[name, row_id, version] for row_id, version in zip(ids, versions, strict=True)]
            rows_nb = _packed(trainer.specs[name], weights, ids, versions)
            log.put(name, np.array(ids, dtype=np.int64), rows_nb, np.array(versions, dtype=np.int64))
        saved, _ = log.mark().seal()
    finally:
        log.close()
    writer = CheckpointWriter(RealFiles(), f"{directory}/checkpoints", keep=100)
    writer.begin(trainer.step, trainer.generation, {"run_id": trainer.run_id})
    for name, spec in trainer.specs.items():
        writer.add_table(spec, saved.tables[name])
    buffer = io.BytesIO()
    np.savez(buffer, **(trainer.dense or {}))  # type: ignore[arg-type]
    writer.add_blob("dense.npz", buffer.getvalue())
    return str(writer.commit())


def _packed(spec: TableSpec, weights: list[Any], ids: list[int], versions: list[int]) -> npt.NDArray[np.uint8]:
    rows_nb = spec.layout.empty(len(ids))
    if ids:
        spec.layout.view(rows_nb, "weight")[:] = np.array(weights, dtype=np.float32)
        for column in spec.layout.columns[1:]:
            start = spec.layout.offsets[column.name]
            rows_nb[:, start : start + column.nbytes] = column_of(column, ids, versions)
    return rows_nb
