"""``import``: a run that begins with rows from elsewhere. It leaves a run directory with a checkpoint of step 0 to resume from.

Rules.

1. Everything is read twice: first to see that it fits, then to write it. Nothing is changed before all of it was found to fit.
2. A row that the file gives the step of its last update keeps that step, in generation 0; any other has (1, 0). So every imported row
   counts as updated, is streamed by the first cut, and is older than whatever the run does to it.
3. ``run.json`` comes last. A process that dies before leaves a directory that is no run's.

Legend: n rows of one piece; b bytes of a packed row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.models.arrays import dense_arrays
from pipeline.models.optimizer import build_optimizer
from pipeline.rowlog import CheckpointWriter
from pipeline.rowlog.checkpoint.array_readers import ArrayReader, Described
from pipeline.rowlog.errors import ImportFailed
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rows.layout import NARROW, Column, stored_dtype
from pipeline.rows.narrow import narrow, widen
from pipeline.rows.spec import TableSpec
from pipeline.rows.version import MAX_STEP, pack_version
from pipeline.session.checkpoints import DYNAMIC, blobs, npz_bytes
from pipeline.session.dense_side import initial_model
from pipeline.session.disk import Disk
from pipeline.session.plan import Plan
from pipeline.session.rundir import claim_to_fill
from pipeline.session.torch_tables import TorchTable, open_rows

PIECE_ROWS: Final = 65_536
IMPORTED: Final = pack_version(1, 0)
READ_DEPTH: Final = 1
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TableImport:
    """The rows of one table: which array of the file is which column. ``fresh_states``: states begin at zero. So do meta columns that
    the file does not have.
    """

    spec: TableSpec
    reader: ArrayReader
    fresh_states: bool = False

    @property
    def columns(self) -> dict[str, Column]:
        """By name of the array."""
        layout = self.spec.layout
        states = () if self.fresh_states else layout.states
        meta = (column for column in layout.meta if f"meta_{column.name}" in self.reader.arrays)
        return {
            "weights": layout.columns[0],
            **{f"{column.role}_{column.name}": column for column in (*states, *meta)},
        }

    @property
    def num_rows(self) -> int:
        return self.reader.arrays["ids"].shape[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the file has that does not come into the rows, and what it lacks, for people."""
        given = self.reader.notes if isinstance(self.reader, TorchTable) and not self.fresh_states else ()
        lacking = [column.name for column in self.spec.layout.meta if column not in self.columns.values()]
        return (*given, *(f"{self.spec.name}: the file has no meta_{name}: zeros" for name in lacking))

    def check(self) -> None:
        """Raises ImportFailed unless the file's arrays are those of the table's rows."""
        given, wanted = self.reader.arrays, self._wanted()
        known = {*wanted, "version"}
        known |= {name for name in given if self.fresh_states and name.startswith("state_")}
        wrong = [f"{name} is missing" for name in wanted if name not in given]
        wrong += [f"{name} is unknown" for name in given if name not in known]
        for name in given.keys() & wanted.keys():
            if not _fits(given[name], wanted[name]):
                wrong.append(f"{name} is {given[name]}")
        if "version" in given and not _fits(given["version"], Described(np.dtype(np.int64), (self._count, 2))):
            wrong.append(f"version is {given['version']}")
        if wrong:
            fits = ", ".join(f"{name} {described}" for name, described in wanted.items())
            hint = "; --fresh-states begins states at zero" if any("state_" in what for what in wrong) else ""
            raise ImportFailed(
                self.reader.path,
                f"{'; '.join(wrong)}. Table {self.spec.name!r} takes {fits}, and perhaps version{hint}",
            )

    @property
    def _count(self) -> int:
        given = self.reader.arrays
        first = given.get("ids") or given.get("weights")
        return first.shape[0] if first is not None and first.shape else 0

    def _wanted(self) -> dict[str, Described]:
        columns = {
            name: Described(self._dtype(name, column), (self._count, column.width))
            for name, column in self.columns.items()
        }
        return {"ids": Described(np.dtype(np.int64), (self._count,)), **columns}

    def _dtype(self, name: str, column: Column) -> np.dtype[Any]:
        """What a file holds of a column: of 16 bits as ``export`` writes it, or float32, which is rounded to nearest."""
        given = self.reader.arrays.get(name)
        if column.dtype == "float16" and given is not None and given.dtype == np.float16:
            return np.dtype(np.float16)
        return np.dtype(np.float32 if column.dtype in NARROW else column.dtype)

    def _stored(self, piece: Mapping[str, npt.NDArray[Any]], name: str, column: Column) -> npt.NDArray[Any]:
        """A piece of a column [n, width] as rows keep it."""
        values = piece[name].reshape(len(piece["ids"]), column.width)
        if column.dtype not in NARROW or values.dtype != np.float32:
            return values
        return narrow(values, column.dtype).view(stored_dtype(column.dtype))

    def pieces(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        names = [name for name in ("ids", *self.columns, "version") if name in self.reader.arrays]
        return self.reader.pieces(names, PIECE_ROWS)

    def check_values(self, say: Say) -> None:
        """Read all of it. Raises ImportFailed for ids that come twice, values that are no numbers, steps that are none."""
        ids_n, start = np.empty(self.num_rows, dtype=np.int64), 0
        for piece in self.pieces():
            stop = start + len(piece["ids"])
            ids_n[start:stop] = piece["ids"]
            for name, column in self.columns.items():
                if column.role == "meta":
                    continue
                kept = self._stored(piece, name, column)
                bad_n = ~np.isfinite(widen(kept, column.dtype) if column.dtype in NARROW else kept).all(axis=1)
                if bad_n.any():
                    row = int(piece["ids"][bad_n][0])
                    raise ImportFailed(
                        self.reader.path,
                        f"{name} of row {row} holds NaN or infinity, or what {column.dtype} cannot hold; rows are finite",
                    )
            if "version" in piece and bool(((piece["version"] < 0) | (piece["version"] > MAX_STEP)).any()):
                raise ImportFailed(self.reader.path, f"a version is outside 0 .. {MAX_STEP}")
            start = stop
            say(f"{self.spec.name}: {start} of {self.num_rows} rows checked")
        ids_n.sort()
        again = ids_n[1:][ids_n[1:] == ids_n[:-1]]
        if len(again):
            raise ImportFailed(self.reader.path, f"id {int(again[0])} comes twice; each row is named once")

    def packed(self) -> Iterator[tuple[Any, Any, Any]]:
        """(ids [n], rows [n, b], versions [n])"""
        layout = self.spec.layout
        for piece in self.pieces():
            rows_nb = layout.empty(len(piece["ids"]))
            for name, column in self.columns.items():
                layout.view(rows_nb, column.name)[:] = self._stored(piece, name, column)
            versions_n = np.full(len(rows_nb), IMPORTED, dtype=np.int64)
            if "version" in piece:
                steps_n = piece["version"][:, 1]
                versions_n = np.where(steps_n > 0, steps_n, versions_n)
            yield np.ascontiguousarray(piece["ids"]), rows_nb, versions_n


def _fits(given: Described, wanted: Described) -> bool:
    """One number a row may come without its second dimension."""
    flat = wanted.shape[1:] == (1,) and given.shape == wanted.shape[:1]
    return given.dtype == wanted.dtype and (given.shape == wanted.shape or flat)


def check_imports(imports: Mapping[str, TableImport], say: Say) -> None:
    """Raises ImportFailed for what does not fit."""
    for one in imports.values():
        one.check()
    for one in imports.values():
        one.check_values(say)


def import_tables(
    plan: Plan,
    imports: Mapping[str, TableImport],
    record: dict[str, Any],
    *,
    overwrite: bool,
    say: Say,
    disk: Disk | None = None,
) -> dict[str, int]:
    """Make the plan's run directory with a checkpoint of step 0 that holds these rows, by table; returns how many.

    Tables that are not named begin empty. Raises ImportFailed and RunDirTaken, and then nothing was changed.
    """
    disk = disk or Disk()
    check_imports(imports, say)
    settings = plan.settings
    with claim_to_fill(
        settings.run.dir, seed=settings.run.seed, record=record, overwrite=overwrite, files=disk.files
    ) as info:
        log, dynamic, names = _open_log(plan, disk), plan.dynamic, list(plan.settings.tables)
        try:
            mark = log.mark()
            for name, one in imports.items():
                for ids_n, rows_nb, versions_n in _told(one, say):
                    mark.save(name, ids_n, rows_nb, versions_n)
                    if dynamic is not None:
                        dynamic.bring(0, names.index(name), ids_n)
            saved, _ = mark.seal()
            writer = CheckpointWriter(disk.files, str(info.dir / "checkpoints"), keep=settings.checkpoint.keep)
            writer.begin(0, info.generation, {"run_id": info.run_id, "reason": "import", "seed": info.seed})
            for spec in plan.specs:
                writer.add_table(spec, saved.tables[spec.name])
            model = initial_model(plan)
            optimizer = build_optimizer(model, settings.dense_optimizer)
            for name, data in blobs(dense_arrays(model), optimizer.state_arrays(), {}).items():
                writer.add_blob(name, data)
            if dynamic is not None:
                writer.add_blob(DYNAMIC, npz_bytes(dynamic.state()))
            writer.commit()
        finally:
            log.close()
    return {name: one.num_rows for name, one in imports.items()}


def _told(one: TableImport, say: Say) -> Iterator[tuple[Any, Any, Any]]:
    """The packed rows of a file, and how far it has come, for people."""
    done = 0
    for ids_n, rows_nb, versions_n in one.packed():
        yield ids_n, rows_nb, versions_n
        done += len(ids_n)
        say(f"{one.spec.name}: {done} of {one.num_rows} rows written")


def _open_log(plan: Plan, disk: Disk) -> RowLog:
    """Where a run of this plan looks for its rows first."""
    ssd, run_dir = plan.settings.store.ssd, plan.settings.run.dir
    directories = [str(run_dir / "checkpoints" / "rows")] if ssd is None else ssd.directories(run_dir)
    log = RowLog(
        [os.path.abspath(path) for path in directories],
        disk.files,
        lambda: disk.reads(READ_DEPTH, False),
        RowLogOptions() if ssd is None else ssd,
    )
    log.open(plan.specs)
    return log


def imports_of(plan: Plan, tables: Sequence[str], files: Sequence[Path], fresh_states: bool) -> dict[str, TableImport]:
    """A file for each table. Raises ImportFailed for a table that the config does not have, or that comes twice."""
    specs = {spec.name: spec for spec in plan.specs}
    found: dict[str, TableImport] = {}
    for table, path in zip(tables, files, strict=True):
        if table not in specs:
            raise ImportFailed(str(path), f"the config has no table {table!r}; its tables are {', '.join(specs)}")
        if table in found:
            raise ImportFailed(str(path), f"table {table!r} is given twice; name one file for each table")
        found[table] = TableImport(specs[table], open_rows(str(path), specs[table]), fresh_states)
    return found
