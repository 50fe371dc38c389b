"""Keeps prepared logs for the next run.

The cache is keyed by the input files (path, size, modification time, first bytes) and by all options, and a part appears
in it whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.flow.stage import StageOptions
from stages.logs.csv_format import CsvFormat
from stages.logs.files import LogFile, find_files
from stages.logs.prepare import Log, prepare

FORMAT_VERSION = 1
HEAD_BYTES = 1 << 16


class PrepareOptions(StageOptions):
    """Sort by time and split, once, into a cache."""

    sort: str | None = Field(None, description="the column of times; null: the column `time` of the source")
    sort_as: Literal["integer", "number", "text"] = Field("integer", description="how the times of a text log compare")
    holdout: float = Field(0.2, ge=0, lt=1, description="share of the rows, the last in time, that is the test part")
    part: Literal["train", "test"] = Field("train", description="which part to read")
    cache_dir: str | None = Field(None, description="null: $XDG_CACHE_HOME/rowstream, or ~/.cache/rowstream")
    memory_bytes: int = Field(256 << 20, ge=1 << 20, description="memory for sorting; the rest waits on disk")


def cache_key(log: Log, holdout: float) -> str:
    """Names the outcome: it changes when an input file or an option does."""
    digest = hashlib.sha256()
    csv = None if log.csv is None else log.csv.model_dump(mode="json")
    digest.update(json.dumps([FORMAT_VERSION, csv, log.sort, log.sort_as, holdout], sort_keys=True).encode())
    for file in log.files:
        found = os.stat(file.path)
        with open(file.path, "rb") as handle:
            digest.update(repr((os.path.abspath(file.path), found.st_size, found.st_mtime_ns)).encode())
            digest.update(handle.read(HEAD_BYTES))
    return digest.hexdigest()[:24]


def _cache_dir(options: PrepareOptions) -> Path:
    if options.cache_dir is not None:
        return Path(options.cache_dir)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "rowstream"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def prepared_part(
    options: PrepareOptions,
    sort: str,
    patterns: Sequence[str],
    csv: CsvFormat | None,
    say: Callable[[str], None] = _say,
) -> LogFile:
    """The wanted part, from the cache or made now. Blocks. The file's name holds the cache key. Raises LogError."""
    log = Log(find_files(patterns), csv, sort, options.sort_as)
    key, cache = cache_key(log, options.holdout), _cache_dir(options)
    final = cache / key
    if not final.exists():
        say(f"preparing {len(log.files)} files, sorted by {sort!r}, in {final} (once)")
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{key}-", dir=cache))
        try:
            made = prepare(log, work, options.holdout, options.memory_bytes)
            say(f"prepared {made.train_rows} training rows and {made.test_rows} test rows")
            _publish(work, final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return LogFile(f"{key}/{options.part}", str(final / f"{options.part}.parquet"))


def _publish(work: Path, final: Path) -> None:
    """Rename, durably; when somebody else was quicker, theirs is the same."""
    for path in (*work.iterdir(), work):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    try:
        os.rename(work, final)
    except OSError:
        if not final.exists():
            raise
