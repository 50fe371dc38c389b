"""Small chunks, so that small tables have many."""

from __future__ import annotations

import pytest

from pipeline.rowlog import chunks


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1000)
