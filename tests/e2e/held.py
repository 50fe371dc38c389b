"""What replicas, checkpoints and trainers hold, as plain values that compare."""

from __future__ import annotations

from pathlib import Path

from pipeline.replica import Replica, View
from pipeline.rows.version import steps_of
from pipeline.session.inspect_rows import newest_checkpoint
from tests.e2e.jobs import Job

Rows = dict[str, dict[int, tuple[bytes, int]]]
"""table -> id -> (weights, step of the version)"""


def rows_of(view: View) -> Rows:
    found: Rows = {}
    for name in view.tables:
        ids = view.ids(name)
        weights, versions = view.lookup_versions(name, ids)
        steps = steps_of(versions).tolist()
        found[name] = {i: (w.tobytes(), s) for i, w, s in zip(ids.tolist(), weights, steps, strict=True)}
    return found


def held_by(replica: Replica) -> Rows:
    with replica.view() as view:
        return rows_of(view)


def checkpointed(directory: Path) -> Rows:
    """What the newest checkpoint holds."""
    reader, found = newest_checkpoint(directory), {}
    for spec in reader.tables:
        rows: dict[int, tuple[bytes, int]] = {}
        for ids, rows_nb, versions in reader.rows(spec.name):
            weights = spec.layout.view(rows_nb, "weight")
            steps = steps_of(versions).tolist()
            rows |= {i: (w.tobytes(), s) for i, w, s in zip(ids.tolist(), weights, steps, strict=True)}
        found[spec.name] = rows
    return found


def trained(job: Job) -> Rows:
    """What the trainer has at the end, as its last checkpoint is exported."""
    return {
        name: {
            int(i): (w.tobytes(), int(v[1]))
            for i, w, v in zip(rows["ids"], rows["weights"], rows["version"], strict=True)
        }
        for name, rows in job.tables().items()
    }
