"""G2 and G3: after the run a replica equals the trainer, and at every moment it is the trainer at some step's end."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.models.digest import dense_digest, digest_of_arrays
from pipeline.replica import Replica
from pipeline.rows.digest import rows_digest
from pipeline.rows.version import steps_of
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, run_job

MODULO = 1 << 64


@pytest.mark.parametrize("every", ["1 steps", "7 steps", "1000 steps", "2ms", "25ms"])
def test_after_the_run_a_replica_equals_the_trainer(tmp_path: Path, every: str) -> None:
    assert_replica_equals(run_job(tmp_path / "run", RAGGED, f"stages.stream.every='{every}'"))


def test_a_late_replica_starts_from_a_snapshot_cut(tmp_path: Path) -> None:
    job = run_job(
        tmp_path / "run",
        RAGGED,
        "stages.source.batches=400",
        "stages.stream.snapshot_every='50 steps'",
        "stages.stream.segment_bytes=32768",
    )
    assert job.summary["snapshot_cuts"] >= 1
    segments = sorted(path.name for path in (job.dir / "stream").glob("*.seg"))
    assert int(segments[0].split(".")[0]) > 1, "nothing was trimmed, so this test shows nothing"
    assert_replica_equals(job)


class Recorder:
    """Knows the digests of all tables and of the dense weights at each step's end: a listener at the fence that reads the
    store's own rows.
    """

    def __init__(self) -> None:
        self.digests: dict[int, int] = {0: 0}
        self.dense: dict[int, str] = {0: digest_of_arrays({})}
        self._rows: dict[str, dict[int, tuple[int, bytes]]] = {}

    def attach(self, resources: Any) -> None:
        self._store, self._specs, self._model = resources.store, resources.plan.specs, resources.model
        self._store.on_step(self._record)

    def _record(self, step: int, plan: Any) -> None:
        digest = self.digests[step - 1]
        if plan is not None:
            rows_ub, versions_u = self._store.backend.read_rows(plan.slots_u)
            for t, spec in enumerate(self._specs):
                start, end = plan.unique.table_start_t[t], plan.unique.table_start_t[t + 1]
                ids, width = plan.unique.ids_u[start:end], spec.dim * 4
                rows = np.ascontiguousarray(rows_ub[start:end, :width])
                digest += self._difference(spec.name, ids, rows, versions_u[start:end])
        self.digests[step] = digest % MODULO
        self.dense[step] = dense_digest(self._model)

    def _difference(self, table: str, ids: Any, rows: Any, versions: Any) -> int:
        known = self._rows.setdefault(table, {})
        old = [i for i in ids.tolist() if i in known]
        gone = 0
        if old:
            old_rows = np.frombuffer(b"".join(known[i][1] for i in old), np.uint8).reshape(len(old), -1)
            gone = rows_digest(table, np.array(old), old_rows, np.array([known[i][0] for i in old]))
        for i, row, version in zip(ids.tolist(), rows, steps_of(versions).tolist(), strict=True):
            known[i] = (version, row.tobytes())
        return rows_digest(table, ids, rows, versions) - gone


def test_readers_that_hammer_views_see_only_ended_steps(tmp_path: Path) -> None:
    recorder, seen, stop = Recorder(), [], threading.Event()
    replica = Replica(str(tmp_path / "run" / "stream"))
    follower = threading.Thread(target=replica.follow, args=(stop,))

    def hammer() -> None:
        while not stop.is_set():
            with replica.view() as view:
                seen.append((view.step, view.digest(), digest_of_arrays(view.dense())))

    reader = threading.Thread(target=hammer)
    config = copy.deepcopy(RAGGED)
    config["stages"]["source"] |= {"batches": 150, "seed": int(np.random.default_rng().integers(2**31))}
    config["stages"]["stream"]["every"] = "1 steps"
    follower.start()
    reader.start()
    try:
        run_job(tmp_path / "run", config, on_open=recorder.attach)
    finally:
        stop.set()
        follower.join()
        reader.join()
    with replica.view() as view:
        seen.append((view.step, view.digest(), digest_of_arrays(view.dense())))
    replica.close()
    steps = [step for step, _, _ in seen]
    assert steps == sorted(steps)
    assert len(set(steps)) > 3, "the reader saw too few states to show anything"
    for step, digest, dense in seen:
        assert digest == recorder.digests[step], f"the view of step {step} is no state of the trainer"
        assert dense == recorder.dense[step], f"the dense weights of step {step} are not the trainer's"
