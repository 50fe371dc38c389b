"""Tables with random rows, and checkpoints of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.files import Files
from pipeline.rowlog import CheckpointWriter
from pipeline.rows import Column, Initializer, RowLayout, TableSpec, pack_version

EDGES = [-(2**63), -1, 0, 2**63 - 1]


@dataclass
class Table:
    """Rows in ascending order of ids."""

    spec: TableSpec
    ids_n: npt.NDArray[np.int64]
    rows_nb: npt.NDArray[np.uint8]
    versions_n: npt.NDArray[np.int64]


def random_table(name: str = "users", count: int = 300, dim: int = 5, generation: int = 2) -> Table:
    """Random ids (the extreme ones among them), bytes and versions; a state of two columns and a meta column."""
    rng = np.random.default_rng()
    layout = RowLayout(
        (
            Column("weight", "float32", dim, "weight"),
            Column("momentum", "float32", 1, "state"),
            Column("second", "float64", 2, "state"),
            Column("count", "int64", 1, "meta"),
        )
    )
    ids = np.unique(
        np.concatenate(
            [rng.integers(-(2**63), 2**63 - 1, max(count - len(EDGES), 0)), np.array(EDGES[:count], np.int64)]
        )
    )
    rows = rng.integers(0, 256, (ids.shape[0], layout.row_bytes), dtype=np.uint8)
    versions = rng.integers(1, 1000, (ids.shape[0],))
    versions += pack_version(generation, 0)
    return Table(TableSpec(name, layout, Initializer("normal", mean=0.1, std=0.25), -7), ids, rows, versions)


def write_checkpoint(
    files: Files, tables: Sequence[Table], *, step: int = 12, keep: int = 1, blobs: Mapping[str, bytes] | None = None
) -> str:
    """Write a checkpoint below ``/run``, each table in uneven pieces."""
    writer = CheckpointWriter(files, "/run/checkpoints", keep=keep)
    writer.begin(step, 2, {"reason": "test", "nested": {"a": [1, None, "ü"]}})
    for table in tables:
        writer.add_table(table.spec)
        for piece in np.array_split(np.arange(table.ids_n.shape[0]), 3):
            writer.add_rows(table.spec, table.ids_n[piece], table.rows_nb[piece], table.versions_n[piece])
    for name, data in (blobs or {}).items():
        writer.add_blob(name, data)
    return writer.commit()
