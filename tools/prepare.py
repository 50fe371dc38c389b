"""Sort a log by time and split it, in bounded memory: ``python -m tools.prepare LOG... --sort COLUMN --out DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from stages.logs.csv_format import CsvFormat
from stages.logs.errors import LogError
from stages.logs.files import find_files
from stages.logs.prepare import KEY_TYPES, Log, prepare

MIB = 1 << 20


def main(
    paths: Annotated[list[str], typer.Argument(help="files or quoted patterns, CSV (plain, gzip, zstd) or .parquet")],
    sort: Annotated[str, typer.Option(help="column of times")],
    out: Annotated[Path, typer.Option(help="directory that gets train.* and test.*")],
    sort_as: Annotated[
        str, typer.Option(help="how the times of a text log compare: integer, number or text")
    ] = "integer",
    holdout: Annotated[
        float, typer.Option(min=0, max=0.999, help="share of the rows, last in time, for the test part")
    ] = 0.0,
    to: Annotated[str, typer.Option(help="parquet or csv.zst")] = "parquet",
    memory_mib: Annotated[int, typer.Option(min=1, help="memory for sorting")] = 256,
    separator: Annotated[str, typer.Option(help="between columns of a text log")] = ",",
    columns: Annotated[str, typer.Option(help="names of the columns, with commas, when there is no header")] = "",
) -> None:
    """Sort a log by time and split it. Equal times keep their order."""
    if to not in ("parquet", "csv.zst") or sort_as not in KEY_TYPES:
        raise typer.BadParameter(f"--to is parquet or csv.zst, --sort-as one of {', '.join(KEY_TYPES)}")
    try:
        files = find_files(paths)
        names = tuple(columns.split(",")) if columns else None
        csv = None
        if not all(file.path.endswith(".parquet") for file in files):
            csv = CsvFormat.model_validate(
                {"separator": separator.replace("\\t", "\t"), "header": names is None, "columns": names}
            )
        made = prepare(
            Log(files, csv, sort, sort_as), out, holdout, memory_mib * MIB, "parquet" if to == "parquet" else "csv.zst"
        )
    except (LogError, ValidationError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{made.train}: {made.train_rows} rows\n{made.test}: {made.test_rows} rows")


if __name__ == "__main__":
    typer.run(main)
