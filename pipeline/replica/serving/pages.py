"""What the HTTP side answers: pages for people, health for orchestrators. Knows no HTTP library; called on threads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline.replica.errors import ReplicaError, UnknownTable
from pipeline.replica.replica import Replica
from pipeline.replica.serving.answers import info
from pipeline.replica.serving.status_page import render
from pipeline.rows.version import unpack_versions

MOST_IDS: Final = 100
TEXT, HTML, JSON = "text/plain; charset=utf-8", "text/html; charset=utf-8", "application/json"
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
INT64: Final = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True)
class Page:
    body: bytes
    content_type: str = TEXT
    status: int = 200


class Pages:
    """See ``ROUTES`` for the paths. Any thread."""

    def __init__(
        self, replica: Replica, why_not_ready: Callable[[], str | None], metrics: Callable[[], bytes], source: str
    ) -> None:
        self._replica, self._why_not_ready, self._metrics, self._source = replica, why_not_ready, metrics, source

    def answer(self, path: str, query: Mapping[str, str]) -> Page:
        """Never raises for what was asked."""
        name, _, rest = path.removeprefix("/").partition("/")
        if rest and name == "rows":
            return self._rows(rest, query.get("ids", ""))
        page = {"": self._status, "healthz": _alive, "readyz": self._ready, "metrics": self._scraped}.get(path[1:])
        if page is not None:
            return page()
        if path == "/tables":
            return _json(info(self._replica)["tables"])
        known = "/, /healthz, /readyz, /metrics, /tables, /rows/TABLE?ids=1,2"
        return Page(f"nothing here; there are {known}\n".encode(), status=404)

    def _status(self) -> Page:
        return Page(render(info(self._replica), self._why_not_ready(), self._source).encode(), HTML)

    def _ready(self) -> Page:
        why_not = self._why_not_ready()
        return Page(b"ready\n") if why_not is None else Page(f"not ready: {why_not}\n".encode(), status=503)

    def _scraped(self) -> Page:
        return Page(self._metrics(), PROMETHEUS)

    def _rows(self, table: str, ids: str) -> Page:
        words = [word for word in ids.replace(",", " ").split() if word]
        try:
            ids_n = [int(word) for word in words]
        except ValueError:
            return _wrong(f"ids are whole numbers, parted by commas: /rows/{table}?ids=1,2; got {ids[:100]!r}")
        if not 0 < len(ids_n) <= MOST_IDS or not all(INT64.min <= row_id <= INT64.max for row_id in ids_n):
            return _wrong(f"1 to {MOST_IDS} ids of 64 bits at once (/rows/{table}?ids=1,2); programs use the socket")
        try:
            return _json(self._looked_up(table, ids_n))
        except UnknownTable as error:
            return Page(json.dumps({"error": str(error)}).encode(), JSON, 404)
        except ReplicaError as error:
            return Page(json.dumps({"error": str(error)}).encode(), JSON, 503)

    def _looked_up(self, table: str, ids: list[int]) -> dict[str, Any]:
        with self._replica.view() as view:
            weights_nd, versions_n = view.lookup_versions(table, np.array(ids, dtype=np.int64))
            step, position = view.step, view.position
        versions = unpack_versions(versions_n).tolist()
        rows = [
            {"id": row_id, "updated": version[1] > 0, "version": version, "weights": [_plain(one) for one in weights]}
            for row_id, version, weights in zip(ids, versions, weights_nd.tolist(), strict=True)
        ]
        return {"table": table, "step": step, "position": list(position), "rows": rows}


def _alive() -> Page:
    return Page(b"alive\n")


def _wrong(message: str) -> Page:
    return Page(json.dumps({"error": message}).encode(), JSON, 400)


def _json(value: object) -> Page:
    return Page((json.dumps(value, allow_nan=False) + "\n").encode(), JSON)


def _plain(value: float) -> float | str:
    """JSON has no NaN and no infinities."""
    return value if math.isfinite(value) else str(value)
