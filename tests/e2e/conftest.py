"""Runs that several modules compare theirs with."""

from __future__ import annotations

import pytest

from tests.e2e.real_jobs import GLOBO_IN_SMALL_BATCHES, RealJob, real_job


@pytest.fixture(scope="session")
def globo(tmp_path_factory: pytest.TempPathFactory) -> RealJob:
    """In batches of 256 samples, so that a small cache holds one."""
    return real_job(tmp_path_factory.mktemp("globo"), "globo", GLOBO_IN_SMALL_BATCHES)
