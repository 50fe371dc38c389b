"""Value-exact over the file transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.wire import FileTransport
from tests.contracts.streamed import StreamedContract


class TestFileStream(StreamedContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Callable[[], FileTransport]:
        return lambda: FileTransport(str(tmp_path / "stream"))

    @pytest.fixture
    def keys(self, tmp_path: Path) -> Mapping[str, Any]:
        return {"path": str(tmp_path / "stream")}
