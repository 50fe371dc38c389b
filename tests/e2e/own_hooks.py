"""Hooks of a user's own, named by configs of tests."""

from __future__ import annotations

from typing import Any

CALLS: list[tuple[str, str, int]] = []
"""(place, table, number of rows)."""


def on_gradients(table: str, ids: Any, gradients: Any) -> None:
    assert gradients.shape[0] == len(ids)
    CALLS.append(("before_update", table, len(ids)))


def broken(table: str, _ids: Any, _rows: Any) -> None:
    raise ValueError(f"nothing is right with {table}")


def too_few(table: str) -> None: ...


async def late(table: str, ids: Any, rows: Any) -> None: ...


class Watcher:
    """Sees rows come and go, and looks them up."""

    def __init__(self, note: str = "watched") -> None:
        self.note = note
        self.store: Any = None

    def open(self, store: Any) -> None:
        self.store = store
        CALLS.append(("open", self.note, 0))

    def after_update(self, table: str, ids: Any, rows: Any) -> None:
        again = self.store.fetch_rows(table, ids)
        assert again.weights_nd.tobytes() == rows.weights_nd.tobytes()
        CALLS.append(("after_update", table, len(ids)))

    def before_evict(self, table: str, ids: Any, rows: Any) -> None:
        again = self.store.fetch_rows(table, ids)
        assert again.weights_nd.tobytes() == rows.weights_nd.tobytes()
        assert again.states["momentum"].tobytes() == rows.states["momentum"].tobytes()
        CALLS.append(("before_evict", table, len(ids)))

    def close(self) -> None:
        CALLS.append(("close", self.note, 0))


class Needy:
    def __init__(self, wanted: int) -> None: ...

    def __call__(self, table: str, ids: Any, rows: Any) -> None: ...
