"""The command ``replica`` of ``python -m pipeline``: its options, and which of them go together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.console import UsageError, parse_ids

Codecs = Annotated[
    list[str] | None, typer.Option("--codec", metavar="M:C", help="a codec that the stream uses, package.module:CODEC")
]


def replica_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="run directory, directory of a stream, or URL: nats://HOST:PORT/STREAM, redis://HOST:PORT/STREAM",
        ),
    ],
    table: Annotated[str | None, typer.Option(metavar="T", help="name of a table")] = None,
    export: Annotated[
        str | None, typer.Option(metavar="F", help="write the table at the end: F.npz, F.parquet or F.safetensors")
    ] = None,
    lookup: Annotated[list[str] | None, typer.Option(metavar="ID ...", help="print these rows of the table")] = None,
    more_ids: Annotated[list[str] | None, typer.Argument(metavar="ID", hidden=True)] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="wait for more cuts instead of stopping at the last")
    ] = False,
    until_end: Annotated[bool, typer.Option("--until-end", help="with --follow: stop when the run has ended")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as one line of JSON")] = False,
    directory: Annotated[
        str | None,
        typer.Option(
            "--dir", metavar="DIR", help="keep rows and position there: the next one goes on where this one was"
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="NAME", help="with --dir: memory, or rowlog, which holds rows on disk alone")
    ] = "memory",
    serve: Annotated[bool, typer.Option("--serve", help="follow, and answer lookups, until SIGINT or SIGTERM")] = False,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="with --serve: pages, health and metrics [127.0.0.1:8787]")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="with --http: not on loopback alone")] = False,
    socket: Annotated[
        str | None, typer.Option(metavar="PATH", help="with --serve: lookups for programs, over a unix socket")
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="compare the replica with the run, every row; exit code 1: different"),
    ] = None,
    ready_lag: Annotated[
        float,
        typer.Option(metavar="S", min=0, help="with --serve: not ready while behind, and the cut older than this"),
    ] = 10.0,
    codec: Codecs = None,
) -> int:
    """Follow a stream: apply its cuts, report lag, look rows up, export a table, serve."""
    from pipeline.rows.codec import load_codecs

    load_codecs(codec)
    if verify is not None:
        if table or export or lookup or more_ids or follow or until_end or serve or directory:
            raise UsageError("--verify goes with --json alone")
        from pipeline.session.verify_replica import verify_replica

        return verify_replica(source, verify, as_json)
    if serve:
        if table or export or lookup or more_ids or follow or until_end or as_json:
            raise UsageError("--serve goes with --http, --public, --socket, --ready-lag, --dir and --target alone")
        from pipeline.replica.serving.service import serve as serve_replica

        return serve_replica(
            source, http=http, public=public, socket=socket, ready_lag_s=ready_lag, path=directory, target=target
        )
    if http or public or socket:
        raise UsageError("--http, --public and --socket say where --serve listens; give it too")
    if more_ids and not lookup:
        raise UsageError(f"{more_ids[0]!r} is neither an option nor an id behind --lookup")
    words = [*(lookup or []), *(more_ids or [])]
    if until_end and not follow:
        raise UsageError("--until-end says when --follow stops; name both")
    if (table is None) == (export is not None or bool(words)):
        raise UsageError("--table goes with --export F.npz, --lookup ID ..., or both")
    ids = parse_ids(words) if words else []
    from pipeline.replica import command as replica

    return replica.follow(
        source,
        table=table,
        export=export,
        follow=follow,
        until_end=until_end,
        lookup=ids,
        as_json=as_json,
        path=directory,
        target=target,
    )
