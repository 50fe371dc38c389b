"""Small chunks, so that small tables have many."""

from __future__ import annotations

import pytest

from pipeline.rowlog.checkpoint import table_reader


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_reader, "CHUNK_BYTES", 1000)
