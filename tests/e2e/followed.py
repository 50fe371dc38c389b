"""What a replica of a run must hold."""

from __future__ import annotations

import numpy as np

from pipeline.replica import Replica
from pipeline.rows.codec import find_codec
from tests.e2e.jobs import Job


def assert_replica_equals(job: Job, codec: str = "fp32", source: str | None = None) -> None:
    """The replica's export equals the trainer's, for every row ever updated: ids, weights as ``codec`` sends them, step of version.

    ``source`` of the stream: not set, its directory.
    """
    replica = Replica(source or str(job.dir / "stream"))
    try:
        replica.apply_available()
        for name, exported in job.tables().items():
            out = job.dir.parent / f"replica-{name}.npz"
            replica.export(name, str(out))
            with np.load(out) as held:
                assert np.array_equal(held["ids"], exported["ids"]), name
                weights = exported["weights"].astype(np.float32)
                sent = find_codec(codec).decode(find_codec(codec).encode(weights), weights.shape[1])
                assert held["weights"].tobytes() == sent.tobytes(), name
                assert np.array_equal(held["version"][:, 1], exported["version"][:, 1]), name
        with replica.view() as view:
            assert view.step == job.summary["last_step"]
            dense = job.dense()
            assert view.dense().keys() == dense.keys()
            assert all(view.dense()[key].tobytes() == value.tobytes() for key, value in dense.items())
    finally:
        replica.close()
