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
        str,
        typer.Option(
            metavar="NAME",
            help="where rows go: memory; rowlog (on disk alone, with --dir); redis://HOST:PORT/DB?prefix=NAME; package.module:Class",
        ),
    ] = "memory",
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from-checkpoint", metavar="DIR", help="begin with the rows of a checkpoint, or of a run's newest"
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="GENERATION:CUT", help="go to this cut, which the stream still holds, and stop there"),
    ] = None,
    to_step: Annotated[
        int | None, typer.Option(metavar="STEP", help="go to the newest cut of at most this step, and stop there")
    ] = None,
    retained: Annotated[
        bool, typer.Option("--retained", help="list the cuts that --at and --to-step can go to")
    ] = False,
    stage_bytes: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="a cut of more bytes waits in a temporary file [256 MiB]")
    ] = None,
    stage_dir: Annotated[str | None, typer.Option(metavar="DIR", help="where that file lies")] = None,
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
    goes_to = at is not None or to_step is not None
    if verify is not None:
        if table or export or lookup or more_ids or follow or until_end or serve or directory or goes_to or retained:
            raise UsageError("--verify goes with --json alone")
        from pipeline.session.verify_replica import verify_replica

        return verify_replica(source, verify, as_json)
    if serve:
        if (
            table
            or export
            or lookup
            or more_ids
            or follow
            or until_end
            or as_json
            or goes_to
            or retained
            or stage_bytes
            or stage_dir
        ):
            raise UsageError(
                "--serve goes with --http, --public, --socket, --ready-lag, --dir, --target and --from-checkpoint alone"
            )
        from pipeline.replica.serving.service import serve as serve_replica

        return serve_replica(
            source,
            http=http,
            public=public,
            socket=socket,
            ready_lag_s=ready_lag,
            path=directory,
            target=target,
            checkpoint=checkpoint,
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
    if (goes_to and follow) or (at is not None and to_step is not None) or (retained and (goes_to or follow or table)):
        raise UsageError("--at, --to-step, --retained and --follow: one of them")
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
        checkpoint=checkpoint,
        at=None if at is None else _parse_cut(at),
        to_step=to_step,
        retained=retained,
        stage_bytes=stage_bytes,
        stage_dir=stage_dir,
    )


def _parse_cut(text: str) -> tuple[int, int]:
    generation, colon, cut = text.partition(":")
    if not (colon and generation.isdecimal() and cut.isdecimal()):
        raise UsageError(f"--at {text!r}: a cut is named GENERATION:CUT, as 1:250; --retained lists them")
    return int(generation), int(cut)
