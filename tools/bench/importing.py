"""import: rows into a new run and out of its checkpoint, in each form, as the command line does it (without its start)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import load
from pipeline.files import RealFiles
from pipeline.rowlog import RowArray, RowArrays, export_table, write_arrays
from pipeline.session import environment
from pipeline.session.importing import import_tables, imports_of
from pipeline.session.inspect_rows import newest_checkpoint
from pipeline.session.plan import Plan, make_plan
from pipeline.session.settings import Settings
from tools.bench.jobs import scratch
from tools.bench.report import BenchRow

NAME = "import"
HELP = "rows/s of import (checked, then written durably) and export, in each form"

ROWS, QUICK_ROWS, PIECE, DIM = 10_000_000, 200_000, 65_536, 64
FORMS = ("npz", "parquet", "safetensors")
TABLE = "user"


def run(quick: bool) -> list[BenchRow]:
    return measure(QUICK_ROWS if quick else ROWS)


def measure(count: int) -> list[BenchRow]:
    rows = []
    with scratch() as directory:
        first = directory / "first.npz"
        write_arrays(RealFiles(), str(first), _made_up(count))
        for form in FORMS:
            source = _exported(directory, first, form) if form != "npz" else first
            run_dir, out = directory / "run", directory / f"out.{form}"
            imported_s = _timed(partial(_import, run_dir, source))
            exported_s = _timed(partial(export_table, newest_checkpoint(run_dir), TABLE, str(out)))
            out.unlink()
            knobs = {"rows": count, "dim": DIM, "optimizer": "rowwise_adagrad"}
            for what, seconds in (("import", imported_s), ("export", exported_s)):
                rows.append(BenchRow(NAME, f"{what}, {form}", f"{count / seconds:,.0f} rows/s", knobs=knobs))
    return rows


def _exported(directory: Path, first: Path, form: str) -> Path:
    source = directory / f"source.{form}"
    _import(directory / "run", first)
    export_table(newest_checkpoint(directory / "run"), TABLE, str(source))
    return source


def _import(run_dir: Path, source: Path) -> None:
    plan = _plan(run_dir)
    record = {"environment": environment.record(plan.settings.run.threads), "config": plan.tree}
    import_tables(plan, imports_of(plan, [TABLE], [source], False), record, overwrite=True, say=lambda _: None)


def _plan(run_dir: Path) -> Plan:
    table = f"tables.{TABLE}"
    overrides = [f"{table}.dim={DIM}", f"{table}.optimizer={{kind: rowwise_adagrad}}", "model.interaction=cat"]
    return make_plan(load(["quickstart"], [f"run.dir={run_dir}", *overrides], Settings))


def _made_up(count: int) -> RowArrays:
    def chunks() -> Iterator[Any]:
        return (np.arange(start, min(start + PIECE, count)) for start in range(0, count, PIECE))

    def weights(ids_n: Any) -> Any:
        return np.random.default_rng(ids_n[0]).standard_normal((len(ids_n), DIM), dtype=np.float32)

    arrays = [
        RowArray("ids", np.dtype(np.int64), (), lambda ids_n: ids_n),
        RowArray("weights", np.dtype(np.float32), (DIM,), weights),
        RowArray("state_momentum", np.dtype(np.float32), (1,), lambda ids_n: ids_n[:, None].astype(np.float32)),
    ]
    return RowArrays(count, chunks, arrays)


def _timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
