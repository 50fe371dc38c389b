"""What a replica of a run must hold."""

from __future__ import annotations

import numpy as np

from pipeline.replica import Replica
from pipeline.rows.version import steps_of
from tests.e2e.jobs import Job


def assert_replica_is(job: Job) -> None:
    """A replica that reads the stream from its beginning holds the trainer's rows, bit for bit."""
    tables = job.tables()
    replica = Replica(str(job.dir / "stream"))
    try:
        replica.apply_available()
        with replica.view() as view:
            for name, exported in tables.items():
                ids = np.sort(view.ids(name))
                assert ids.tolist() == exported["ids"].tolist()
                weights, versions = view.lookup_versions(name, ids)
                assert weights.tobytes() == exported["weights"].tobytes()
                assert steps_of(versions).tolist() == exported["version"][:, 1].tolist()
            for name, values in job.dense().items():
                assert view.dense()[name].tobytes() == values.tobytes()
    finally:
        replica.close()
