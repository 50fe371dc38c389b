"""What every test relies on: a pinned environment, the place of the real logs, Hypothesis without clocks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.session import environment

# Before any test module is imported, and so before torch is.
environment.pin()

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
MEMORY = Path("/dev/shm")

# A busy machine is no failure, so nothing in a test depends on how long it takes.
settings.register_profile("rowstream", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("rowstream")


def data_root() -> Path:
    """Where the real logs are: ``ROWSTREAM_DATA``, or ``../shared/data`` beside the checkout."""
    return Path(os.environ.get("ROWSTREAM_DATA", ROOT / ".." / "shared" / "data")).resolve()


def real_data(name: str) -> Path:
    """The real log ``name``. Skips the test, and says why, where it is absent."""
    path = data_root() / name
    if not path.exists():
        pytest.skip(f"the real log {name!r} is not there: no {path}; set ROWSTREAM_DATA to the folder that holds it")
    return path


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """As ``tmp_path``, on a file system in memory where there is one: for thousands of files that live for a moment."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="rowstream-", dir=MEMORY) as made:
        yield Path(made)
