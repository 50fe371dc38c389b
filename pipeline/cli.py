"""The command line: ``python -m pipeline``. Commands are thin; what they do is imported when they run.

Exit codes: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted after a clean drain.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import __version__
from pipeline.cli_replica import Codecs, replica_command
from pipeline.console import UsageError, guarded, list_stages, parse_ids, show_stage, split_config
from pipeline.console.failures import DEBUG

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train embedding tables larger than memory, and stream every changed row to a replica, bit for bit.",
)

Config = Annotated[
    list[str] | None,
    typer.Argument(metavar="CONFIG|key=value", help="YAML files or names of shipped configs, and overrides"),
]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="directory of a run (its run.dir)")]
Table = Annotated[str | None, typer.Option(metavar="T", help="name of a table")]

# A negative id must not be taken for an option.
NEGATIVE_IDS = {"ignore_unknown_options": True}


def command(name: str, **settings: Any) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Register a command whose return value is the exit code."""

    def register(function: Callable[..., int]) -> Callable[..., int]:
        @wraps(function)
        def run(*arguments: Any, **options: Any) -> None:
            raise typer.Exit(guarded(lambda: function(*arguments, **options)))

        app.command(name, **settings)(run)
        return function

    return register


@app.callback(invoke_without_command=True)
def common(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help=f"show tracebacks; may stand anywhere; also {DEBUG}=1")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"
    if version:
        typer.echo(f"rowstream {__version__}")
        raise typer.Exit


@command("run")
def run_command(
    config: Config = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="empty a run directory that already holds a run")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in the run directory")] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="with --resume: a key that may differ from the run's although it changes what is computed (machine: another machine; "
            "proof: other rows than those published); makes a fork; may be given again",
        ),
    ] = None,
) -> int:
    """Train. Figures go to RUN_DIR/summary.json."""
    if accept and not resume:
        raise UsageError("--accept says what may differ from the run that --resume goes on with; give both")
    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite removes it; give one of them")
    from pipeline.session import commands

    return commands.run(*split_config(config or []), overwrite=overwrite, resume=resume, accept=accept or [])


@command("check")
def check_command(config: Config = None) -> int:
    """Compose, validate and plan; run nothing."""
    from pipeline.session import commands

    return commands.check(*split_config(config or []))


@command("show")
def show_command(config: Config = None) -> int:
    """Print the effective config with the origin of each key, and the graph."""
    from pipeline.session import commands

    return commands.show(*split_config(config or []))


@command("stages")
def stages_command(name: Annotated[str | None, typer.Argument(help="a stage, or package.module:Class")] = None) -> int:
    """What can be used as a stage; with NAME its options, defaults and docs."""
    return list_stages() if name is None else show_stage(name)


@command("rows", context_settings=NEGATIVE_IDS)
def rows_command(
    run_dir: RunDir,
    table: Annotated[str, typer.Option(metavar="T", help="name of a table")],
    ids: Annotated[list[str], typer.Option(metavar="ID ...", help="which rows, parted by spaces or commas")],
    more_ids: Annotated[list[str] | None, typer.Argument(metavar="ID", hidden=True)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> int:
    """Current weights, states and versions of some rows."""
    wanted = parse_ids([*ids, *(more_ids or [])])
    from pipeline.session import commands

    return commands.rows(run_dir, table, wanted, as_json)


@command("export")
def export_command(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option(metavar="F", help="file to write: F.npz, F.parquet or F.safetensors")],
    table: Table = None,
    dense: Annotated[bool, typer.Option("--dense", help="the dense weights instead of a table")] = False,
) -> int:
    """Write a whole table, or the dense weights (npz), to a file."""
    if (table is None) == (not dense):
        raise UsageError("name either one table (--table T) or the dense weights (--dense)")
    from pipeline.session import commands

    return commands.export(run_dir, table, dense, out)


@command("import")
def import_command(
    table: Annotated[list[str], typer.Option("--table", metavar="T", help="name of a table; may be given again")],
    source: Annotated[
        list[Path],
        typer.Option(
            "--from",
            metavar="F",
            help="its rows: F.npz, F.parquet or F.safetensors, as export writes, or F.pt, a state dict; one for each --table",
        ),
    ],
    config: Config = None,
    fresh_states: Annotated[
        bool, typer.Option("--fresh-states", help="begin the optimizer's states at zero, whatever the files hold")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="empty a run directory that already holds a run")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="into the run that the run directory holds, behind its newest checkpoint")
    ] = False,
) -> int:
    """Begin a run with rows from files, or put them into one: run --resume then trains on from them."""
    if resume and overwrite:
        raise UsageError("--resume puts rows into a run and --overwrite removes it; give one of them")
    if len(table) != len(source):
        raise UsageError(
            f"{len(table)} --table and {len(source)} --from: give one file for each table, in the same order"
        )
    from pipeline.session import commands

    sources, overrides = split_config(config or [])
    return commands.import_rows(
        sources, overrides, table, source, fresh_states=fresh_states, overwrite=overwrite, resume=resume
    )


@command("verify")
def verify_command(
    run_dir: RunDir, as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False, codec: Codecs = None
) -> int:
    """Check every checksum of a run's checkpoints and stream."""
    from pipeline.rows.codec import load_codecs
    from pipeline.session.verify import verify

    load_codecs(codec)
    return verify(run_dir, as_json)


@command("publish")
def publish_command(
    run_dir: RunDir,
    timeout: Annotated[str, typer.Option("--timeout", metavar="T", help="how long to try: 30s")] = "600s",
) -> int:
    """Send what a run that has ended could not publish (it exited 1 and said so), from its newest checkpoint."""
    from pipeline.session import commands

    return commands.publish(run_dir, timeout)


command("replica", context_settings=NEGATIVE_IDS)(replica_command)


@command("bench")
def bench_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME ...]", help="which; all when none is named")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="smaller sizes, for a first look")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="print tables for a README")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write all figures to FILE")] = None,
    listing: Annotated[bool, typer.Option("--list", help="only say which benchmarks there are")] = False,
) -> int:
    """Measure, each figure beside its peer."""
    try:
        from tools.bench.main import main as bench
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("tools"):
            raise
        raise UsageError(
            "the benchmarks come with a checkout, not with the installed package: clone, then make bench"
        ) from error
    return bench(names or [], quick, markdown=markdown, json_file=json_file, listing=listing)


@command("schema")
def schema_command() -> int:
    """Print the JSON Schema of configs, for editors."""
    from pipeline.session import commands

    return commands.schema()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave the process with its exit code."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        # Classes of one's own that a config names lie here more often than not; ``python -m`` looks here too.
        sys.path.append(os.getcwd())
    words = list(sys.argv[1:] if arguments is None else arguments)
    # People add --debug where they stopped typing, so it counts wherever it stands.
    app(["--debug", *(word for word in words if word != "--debug")] if "--debug" in words else words)
