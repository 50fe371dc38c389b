"""Rows of a run, for people and programs: of the live one, or of its newest checkpoint. Needs no trainer and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pipeline.files import RealFiles
from pipeline.rowlog import CheckpointReader
from pipeline.rows.initial import initial_rows
from pipeline.session.errors import NoRun, UnknownRow
from pipeline.session.live_rows import fetch_live
from pipeline.session.rundir import describe, is_live
from pipeline.store import FetchedRows, SnapshotRows
from pipeline.store.fetched import unpacked

SHOWN_WEIGHTS = 6


def newest_checkpoint(run_dir: Path) -> CheckpointReader:
    """Open the newest checkpoint of a run. Raises NoRun."""
    describe(run_dir)
    directory = run_dir / "checkpoints"
    if not directory.is_dir():
        raise NoRun(run_dir, "checkpoint yet")
    return CheckpointReader.newest(RealFiles(), str(directory))


def describe_rows(run_dir: Path, table: str, ids: Sequence[int]) -> dict[str, Any]:
    """Weights, states, meta columns and version of each id, in the order asked; a row never updated has its initial values and says so.

    Of a run that is going on they are those of the last step that has ended, else those of the newest checkpoint. Raises NoRun,
    UnknownRow and NotAnswering.
    """
    ids_n = np.array(ids, dtype=np.int64)
    tables = describe(run_dir)["config"]["tables"]
    if table not in tables:
        raise UnknownRow(f"{run_dir} has no table {table!r}; it has {list(tables)}")
    rows = fetch_live(run_dir, table, ids_n) if is_live(run_dir) else _of_checkpoint(run_dir, table, ids_n)
    return {
        "table": table,
        "step": rows.step,
        "without_row": "default row" if tables[table].get("admission") else "initial row",
        "rows": [
            {
                "id": int(ids_n[n]),
                "updated": bool(rows.updated_n[n]),
                "version": rows.versions_n2[n].tolist(),
                **{name: values[n].tolist() for name, values in rows.columns.items()},
            }
            for n in range(ids_n.shape[0])
        ],
    }


def _of_checkpoint(run_dir: Path, table: str, ids_n: Any) -> FetchedRows:
    reader = newest_checkpoint(run_dir)
    spec = next(spec for spec in reader.tables if spec.name == table)
    found = reader.find(table, ids_n)
    rows_nb = initial_rows(spec.absent, ids_n)
    rows_nb[found.found_n] = found.rows_nb[found.found_n]
    rows = SnapshotRows(rows_nb, found.versions_n, found.found_n)
    return unpacked(table, spec.layout, reader.manifest.step, ids_n, rows, states=True)


def print_rows(found: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"table {found['table']} at step {found['step']}")
    for row in found["rows"]:
        version = f"updated at step {row['version'][1]}" if row["updated"] else f"never updated: {found['without_row']}"
        console.print(f"id {row['id']}  {version}")
        for name, values in row.items():
            if name not in ("id", "updated", "version"):
                form = "d" if isinstance(values[0], int) else "+.6g"
                shown = " ".join(f"{value:{form}}" for value in values[:SHOWN_WEIGHTS])
                more = f" ... ({len(values)} in all)" if len(values) > SHOWN_WEIGHTS else ""
                console.print(f"  {name}: {shown}{more}")
