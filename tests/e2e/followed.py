"""What a replica of a run must hold."""

from __future__ import annotations

import numpy as np

from pipeline.replica import Replica
from tests.e2e.jobs import Job


def assert_replica_equals(job: Job) -> None:
    """The replica's export equals the trainer's, for every row ever updated: ids, weights, step of version."""
    replica = Replica(str(job.dir / "stream"))
    try:
        replica.apply_available()
        for name, exported in job.tables().items():
            out = job.dir.parent / f"replica-{name}.npz"
            replica.export(name, str(out))
            with np.load(out) as held:
                assert np.array_equal(held["ids"], exported["ids"]), name
                assert held["weights"].tobytes() == exported["weights"].astype(np.float32).tobytes(), name
                assert np.array_equal(held["version"][:, 1], exported["version"][:, 1]), name
        with replica.view() as view:
            assert view.step == job.summary["last_step"]
            dense = job.dense()
            assert view.dense().keys() == dense.keys()
            assert all(view.dense()[key].tobytes() == value.tobytes() for key, value in dense.items())
    finally:
        replica.close()
