"""Rows of a run's newest checkpoint, for people and programs. Needs no trainer and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pipeline.files import RealFiles
from pipeline.rowlog import CheckpointReader
from pipeline.rows.initial import initial_rows
from pipeline.rows.version import unpack_versions
from pipeline.session.errors import NoRun, NotYet, UnknownRow
from pipeline.session.rundir import describe, is_live

SHOWN_WEIGHTS = 6


def newest_checkpoint(run_dir: Path) -> CheckpointReader:
    """Open the newest checkpoint of a run. Raises NoRun."""
    describe(run_dir)
    directory = run_dir / "checkpoints"
    if not directory.is_dir():
        raise NoRun(run_dir, "checkpoint yet")
    return CheckpointReader.newest(RealFiles(), str(directory))


def describe_rows(run_dir: Path, table: str, ids: Sequence[int]) -> dict[str, Any]:
    """Weights, states and version of each id, in the order asked; a row never updated has its initial values and says so.

    Raises NotYet for a run that is going on, NoRun and UnknownRow.
    """
    if is_live(run_dir):
        raise NotYet(
            f"rows of the live run in {run_dir}",
            "wait until it has ended, or ask a replica: `replica RUN_DIR --lookup ID ...`",
        )
    reader = newest_checkpoint(run_dir)
    spec = next((spec for spec in reader.tables if spec.name == table), None)
    if spec is None:
        raise UnknownRow(f"{run_dir} has no table {table!r}; it has {[spec.name for spec in reader.tables]}")
    ids_n = np.array(ids, dtype=np.int64)
    found = reader.find(table, ids_n)
    rows_nb = initial_rows(spec, ids_n)
    rows_nb[found.found_n] = found.rows_nb[found.found_n]
    columns = {column.name: spec.layout.view(rows_nb, column.name) for column in spec.layout.columns}
    versions = unpack_versions(found.versions_n)
    return {
        "table": table,
        "step": reader.manifest.step,
        "rows": [
            {
                "id": int(ids_n[n]),
                "updated": bool(found.found_n[n]),
                "version": [int(versions[n, 0]), int(versions[n, 1])],
                **{name: values[n].tolist() for name, values in columns.items()},
            }
            for n in range(ids_n.shape[0])
        ],
    }


def print_rows(found: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"table {found['table']} at step {found['step']}")
    for row in found["rows"]:
        version = f"updated at step {row['version'][1]}" if row["updated"] else "never updated: initial row"
        console.print(f"id {row['id']}  {version}")
        for name, values in row.items():
            if name not in ("id", "updated", "version"):
                shown = " ".join(f"{value:+.6g}" for value in values[:SHOWN_WEIGHTS])
                more = f" ... ({len(values)} in all)" if len(values) > SHOWN_WEIGHTS else ""
                console.print(f"  {name}: {shown}{more}")
