"""Many callers at once: each sees rows as they were put, of versions that never fall."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.rowlog.log import RowLogOptions
from tests.files.recording import RecordingFiles
from tests.rowlog import logs
from tests.rowlog.log_stress import stress


@pytest.mark.parametrize("segment_bytes", [4096, 20_000])
def test_callers_on_real_files_do_not_disturb_each_other(tmp_path: Path, segment_bytes: int) -> None:
    options = RowLogOptions(segment_bytes=segment_bytes, extent_bytes=4096, write_behind_bytes=16384, max_space=1.3)
    stress(logs.log_on_disk(str(tmp_path), options), rounds=30, seed=1)


@pytest.mark.parametrize("seed", range(2))
def test_callers_on_a_disk_in_memory_do_not_disturb_each_other(seed: int) -> None:
    options = RowLogOptions(segment_bytes=4096, extent_bytes=4096, write_behind_bytes=4096, max_space=1.1)
    stress(logs.log_in_memory(RecordingFiles(), options), rounds=35, seed=seed)
