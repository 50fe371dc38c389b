"""The command ``replica`` of ``python -m pipeline``: its options, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.console import UsageError, parse_ids

Codecs = Annotated[
    list[str] | None, typer.Option("--codec", metavar="M:C", help="a codec that the stream uses, package.module:CODEC")
]


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="run directory, directory of a stream, or URL: nats://HOST:PORT/STREAM, redis://HOST:PORT/STREAM",
    ),
]
Table = Annotated[str | None, typer.Option(metavar="T", help="name of a table")]
Export = Annotated[
    str | None, typer.Option(metavar="F", help="write the table at the end: F.npz, F.parquet or F.safetensors")
]
Lookup = Annotated[list[str] | None, typer.Option(metavar="ID ...", help="print these rows of the table")]
MoreIds = Annotated[list[str] | None, typer.Argument(metavar="ID", hidden=True)]
Follow = Annotated[bool, typer.Option("--follow", help="wait for more cuts instead of stopping at the last")]
UntilEnd = Annotated[bool, typer.Option("--until-end", help="with --follow: stop when the run has ended")]
Json = Annotated[bool, typer.Option("--json", help="print the figures as one line of JSON")]
Directory = Annotated[
    str | None,
    typer.Option("--dir", metavar="DIR", help="keep rows and position there: the next one goes on where this one was"),
]
Target = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="where rows go: memory; rowlog (on disk alone, with --dir); redis://HOST:PORT/DB?prefix=NAME; package.module:Class",
    ),
]
FromCheckpoint = Annotated[
    str | None,
    typer.Option("--from-checkpoint", metavar="DIR", help="begin with the rows of a checkpoint, or of a run's newest"),
]
At = Annotated[
    str | None,
    typer.Option(metavar="GENERATION:CUT", help="go to this cut, which the stream still holds, and stop there"),
]
ToStep = Annotated[
    int | None, typer.Option(metavar="STEP", help="go to the newest cut of at most this step, and stop there")
]
Retained = Annotated[bool, typer.Option("--retained", help="list the cuts that --at and --to-step can go to")]
StageBytes = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="a cut of more bytes waits in a temporary file [256 MiB]")
]
StageDir = Annotated[str | None, typer.Option(metavar="DIR", help="where that file lies")]
Serve = Annotated[bool, typer.Option("--serve", help="follow, and answer lookups, until SIGINT or SIGTERM")]
Http = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="with --serve: pages, health and metrics [127.0.0.1:8787]")
]
Public = Annotated[bool, typer.Option("--public", help="with --http: not on loopback alone")]
Socket = Annotated[
    str | None, typer.Option(metavar="PATH", help="with --serve: lookups for programs, over a unix socket")
]
Verify = Annotated[
    Path | None,
    typer.Option(metavar="RUN_DIR", help="compare the replica with the run, every row; exit code 1: different"),
]
ReadyLag = Annotated[
    float, typer.Option(metavar="S", min=0, help="with --serve: not ready while behind, and the cut older than this")
]

SERVED = ("http", "public", "socket", "ready_lag", "directory", "target", "checkpoint")
"""Options that go with --serve."""


def replica_command(
    source: Source,
    table: Table = None,
    export: Export = None,
    lookup: Lookup = None,
    more_ids: MoreIds = None,
    follow: Follow = False,
    until_end: UntilEnd = False,
    as_json: Json = False,
    directory: Directory = None,
    target: Target = "memory",
    checkpoint: FromCheckpoint = None,
    at: At = None,
    to_step: ToStep = None,
    retained: Retained = False,
    stage_bytes: StageBytes = None,
    stage_dir: StageDir = None,
    serve: Serve = False,
    http: Http = None,
    public: Public = False,
    socket: Socket = None,
    verify: Verify = None,
    ready_lag: ReadyLag = 10.0,
    codec: Codecs = None,
) -> int:
    """Follow a stream: apply its cuts, report lag, look rows up, export a table, serve."""
    given = dict(locals())
    from pipeline.rows.codec import load_codecs

    load_codecs(given.pop("codec"))
    if verify is not None:
        _check_alone(given, ("verify", "as_json"), "--verify goes with --json alone")
        from pipeline.session.verify_replica import verify_replica

        return verify_replica(source, verify, as_json)
    if serve:
        listed = ", ".join("--" + OPTION_OF.get(name, name).replace("_", "-") for name in SERVED)
        _check_alone(given, ("serve", *SERVED), f"--serve goes with {listed} alone")
        return _serve({name: given[name] for name in SERVED}, source)
    return _follow(given)


OPTION_OF = {"directory": "dir", "checkpoint": "from-checkpoint"}
"""What an option is called where that is not its name here."""
DEFAULTS = {"target": "memory", "ready_lag": 10.0}
"""Of those that are set where nothing is given."""


def _check_alone(given: Mapping[str, Any], allowed: Sequence[str], what: str) -> None:
    """Raises UsageError where another option than these is given."""
    if any(value and value != DEFAULTS.get(name) for name, value in given.items() if name not in ("source", *allowed)):
        raise UsageError(what)


def _serve(options: Mapping[str, Any], source: str) -> int:
    from pipeline.replica.serving.service import serve

    return serve(
        source,
        http=options["http"],
        public=options["public"],
        socket=options["socket"],
        ready_lag_s=options["ready_lag"],
        path=options["directory"],
        target=options["target"],
        checkpoint=options["checkpoint"],
    )


def _follow(given: Mapping[str, Any]) -> int:
    table, export, follow, at, to_step = (given[name] for name in ("table", "export", "follow", "at", "to_step"))
    more_ids, lookup = given["more_ids"], given["lookup"]
    if given["http"] or given["public"] or given["socket"]:
        raise UsageError("--http, --public and --socket say where --serve listens; give it too")
    if more_ids and not lookup:
        raise UsageError(f"{more_ids[0]!r} is neither an option nor an id behind --lookup")
    words = [*(lookup or []), *(more_ids or [])]
    if given["until_end"] and not follow:
        raise UsageError("--until-end says when --follow stops; name both")
    if (table is None) == (export is not None or bool(words)):
        raise UsageError("--table goes with --export F.npz, --lookup ID ..., or both")
    if sum((follow, at is not None, to_step is not None, given["retained"])) > 1 or (given["retained"] and table):
        raise UsageError("--at, --to-step, --retained and --follow: one of them")
    ids = parse_ids(words) if words else []
    from pipeline.replica import command as replica

    return replica.follow(
        given["source"],
        table=table,
        export=export,
        follow=follow,
        until_end=given["until_end"],
        lookup=ids,
        as_json=given["as_json"],
        path=given["directory"],
        target=given["target"],
        checkpoint=given["checkpoint"],
        at=None if at is None else _parse_cut(at),
        to_step=to_step,
        retained=given["retained"],
        stage_bytes=given["stage_bytes"],
        stage_dir=given["stage_dir"],
    )


def _parse_cut(text: str) -> tuple[int, int]:
    generation, colon, cut = text.partition(":")
    if not (colon and generation.isdecimal() and cut.isdecimal()):
        raise UsageError(f"--at {text!r}: a cut is named GENERATION:CUT, as 1:250; --retained lists them")
    return int(generation), int(cut)
