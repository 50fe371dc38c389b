"""Each sabotage of what is durable, and when, shows in a crash image."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.files import BrokenFile
from pipeline.replica import ReplicaError
from pipeline.rowlog import RowLogError
from pipeline.wire import WireError
from tests.e2e.crash_images import TIERS, Oracle, Reopened, record
from tests.files.journal import crash_images
from tests.sabotage.crashes import SABOTAGES

TRIES = 4
"""Runs: what is on its way when differs from run to run."""

OFTEN_SEEN_BEHIND = ("remove", "remove_dir", "sync_dir", "rename")
"""Crashes behind these calls are looked at first."""


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(tmp_path_factory.mktemp("crashes") / "whole")


def reopen_all(directory: Path, oracle: Oracle, name: str) -> None:
    for attempt in range(TRIES):
        recorded, image_dir = directory / str(attempt), directory / "image"
        recorded.mkdir()
        with SABOTAGES[name]():
            entries, _ = record(recorded, TIERS["disk"])
        for image in sorted(crash_images(entries), key=lambda one: one.call.kind not in OFTEN_SEEN_BEHIND):
            reopened = Reopened(image, image_dir)
            try:
                reopened.check(oracle)
            finally:
                reopened.close()
            shutil.rmtree(image_dir)


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotage_is_caught(memory_path: Path, oracle: Oracle, name: str) -> None:
    """Without one, all images hold: see ``tests/e2e/test_crash_images.py``."""
    with pytest.raises((AssertionError, RowLogError, ReplicaError, WireError, BrokenFile, FileNotFoundError)):
        reopen_all(memory_path, oracle, name)
