"""A replica's applied position as plain JSON values, as its store and other targets keep it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.replica.cuts import Applied, ShardPlace
from pipeline.replica.errors import BadTarget, OtherTables
from pipeline.wire.frames import CutPosition
from pipeline.wire.transport import Position


def encode_position(applied: Applied, wanted: Iterable[str] | None) -> bytes:
    """All of it, header frames included, as JSON that people can read."""
    fields = encode_applied(applied, 0, wanted)
    headers = [base64.b64encode(place.header).decode() for place in applied.places]
    return json.dumps({**fields, "headers": headers}).encode()


def decode_position(where: str, data: bytes, wanted: Iterable[str] | None) -> Applied:
    """Raises BadTarget for what is no position, OtherTables."""
    try:
        fields = json.loads(data)
        headers = [base64.b64decode(header) for header in fields["headers"]]
        return decode_applied(where, fields, headers, wanted)[0]
    except (ValueError, KeyError, TypeError) as error:
        raise BadTarget(f"{where} holds no position of a replica: {data[:40]!r}") from error


def encode_applied(applied: Applied, serial: int, wanted: Iterable[str] | None) -> dict[str, Any]:
    """``wanted``: the tables that are held, None for all. The header frames go elsewhere: they are bytes."""
    return {
        "position": list(applied.position),
        "step": applied.step,
        "clock_ns": applied.clock_ns,
        "ended": applied.ended,
        "unsent": applied.unsent,
        "oldest_ns": applied.oldest_ns,
        "ahead_by": applied.ahead_by,
        "places": [[place.epoch, None if place.at is None else list(place.at)] for place in applied.places],
        "serial": serial,
        "tables": None if wanted is None else sorted(wanted),
    }


def decode_applied(
    where: str, fields: Mapping[str, Any], headers: Sequence[bytes], wanted: Iterable[str] | None
) -> tuple[Applied, int]:
    """The position, and the serial. Raises OtherTables where other tables are held than ``wanted``."""
    asked = None if wanted is None else sorted(wanted)
    if fields["tables"] != asked:
        raise OtherTables(where, fields["tables"], asked)
    applied = Applied(
        position=CutPosition(*fields["position"]),
        step=fields["step"],
        clock_ns=fields["clock_ns"],
        ended=fields["ended"],
        unsent=fields.get("unsent"),
        oldest_ns=fields.get("oldest_ns"),
        ahead_by=fields.get("ahead_by"),
        places=tuple(
            ShardPlace(epoch, None if at is None else Position(*at), header)
            for (epoch, at), header in zip(fields["places"], headers, strict=True)
        ),
    )
    return applied, fields["serial"]
