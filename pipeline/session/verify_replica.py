"""``replica SOURCE --verify RUN_DIR``: whether a replica of a stream is the trainer, bit for bit. Needs no torch.

The trainer's side is a checkpoint: of an ended run the newest, which is of the step of the last cut; of a run that is going on, or was
killed, the newest that has a cut of its step in the stream.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.session.comparing import Compared, compare
from pipeline.session.replica_at import CommonStep

EQUAL, DIFFERENT = 0, 1


def verify_replica(source: str, run_dir: Path, as_json: bool) -> int:
    """Print what was compared and the first differences; returns the exit code: 1 when anything differs.

    Raises NoRun, StreamAbsent, OtherRunsStream, NoCommonStep, and what a replica and a checkpoint's reader raise.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with console.status("reading the stream ...") as status, CommonStep(source, run_dir) as both:
        status.update("comparing ...")
        with both.replica.view() as view:
            compared = compare(view, both.reader, both.header)
            place = f"cut {view.position.cut} of generation {view.position.generation}"
    if both.header.best_effort:
        compared.notes.append("a best effort stream: a replica is the trainer only when all that waited was sent")
    _print(compared, f"{both.reader.path}, and {place}", as_json)
    return DIFFERENT if compared.different else EQUAL


def _print(compared: Compared, what: str, as_json: bool) -> None:
    if as_json:
        told: dict[str, Any] = {
            "equal": not compared.different,
            "step": compared.step,
            "rows": compared.rows,
            "dense_arrays": compared.dense_arrays,
            "different": compared.different,
            "first": [{"table": one.table, "id": one.id, "step": one.step, "what": one.what} for one in compared.first],
            "notes": compared.notes,
        }
        print(json.dumps(told))
        return
    print(f"step {compared.step}: {what}")
    for name, count in compared.rows.items():
        print(f"{name}: {count} rows compared")
    if compared.dense_arrays:
        print(f"dense weights: {compared.dense_arrays} arrays compared")
    for note in compared.notes:
        print(f"note: {note}")
    for difference in compared.first:
        print(f"different: {difference}")
    print(f"{compared.different} differences" if compared.different else "the replica is the trainer, bit for bit")
