"""Makes small text logs and the sources that read them."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zstandard

from stages.sources import CsvSource

WRITERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def write(path: Path, lines: Sequence[str], header: str | None = "user,item,x,y") -> Path:
    """Write lines, compressed as the suffix says. The name appears when the file is complete."""
    text = "".join(f"{line}\n" for line in ([header] if header is not None else []) + list(lines))
    part = path.with_name(f".{path.name}")
    part.write_bytes(WRITERS.get(path.suffix, WRITERS[""])(text.encode()))
    return part.rename(path)


def csv_source(paths: Any, **options: Any) -> Callable[[], CsvSource]:
    """A maker of sources of logs with the columns user, item, x, y."""
    mapping: dict[str, Any] = {"features": {"user": "user", "item": "item"}, "dense": ["x"], "label": "y"}
    found = paths if isinstance(paths, list) else [paths]
    chosen = {"paths": [str(path) for path in found], "batch_size": 4, **mapping, **options}
    return lambda: CsvSource(CsvSource.Options.model_validate(chosen))
