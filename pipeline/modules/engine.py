"""The rows of a module: the session's store, driven step by step from the user's own loop.

Two lanes. ``prefetch`` reserves, loads, unpins and cleans, in the order of calls; ``compute`` owns the device: it gathers, updates and
reads for eval. The user's thread waits for them; autograd's only hands gradients over. So it works under a running event loop too.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cuda.plan import POOLINGS, BatchIds, Float32s, Matrix
from pipeline.flow import Marker
from pipeline.flow.run_info import RunInfo
from pipeline.models.pooling import pool_rows
from pipeline.modules.ahead import Ahead
from pipeline.modules.errors import BackwardAwaited, Closed
from pipeline.modules.lane import Lane
from pipeline.modules.settings import ModuleSettings, check_stream
from pipeline.modules.step import OpenStep, State, make_outputs
from pipeline.modules.streaming import Streaming
from pipeline.rows.memory import keep_freed_memory
from pipeline.session import environment
from pipeline.session.disk import Disk
from pipeline.session.live_rows import LiveRows
from pipeline.session.plan import Plan, plan_of_rows
from pipeline.session.resources import Resources
from pipeline.session.resume import Resume
from pipeline.session.rundir import claim, claim_again
from pipeline.store import Reservation, Store

POOLING_NAMES = {number: name for name, number in POOLINGS.items()}


class Engine:
    """Open until ``close``. One thread at a time calls it, besides autograd's, which calls ``update``."""

    def __init__(self, settings: ModuleSettings) -> None:
        self.settings = settings
        self._stack = ExitStack()
        self.closed = False
        self._open_step: OpenStep | None = None
        self._waiting = 0
        self._markers, self._used = 0, False
        try:
            self._open()
            close_at_exit(self)
        except BaseException:
            self._stack.close()
            raise

    def _open(self) -> None:
        keep_freed_memory()
        settings = self.settings
        path = settings.dir or Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="rowstream-")))
        job = settings.as_job(path)
        self.plan: Plan = plan_of_rows(job)
        check_stream(settings.stream, self.plan.specs)
        record = {"environment": environment.record(settings.threads), "config": self.plan.tree}
        self.run, resume = self._claim_dir(path, record)
        self._prefetch, self._compute = Lane("rowstream-prefetch"), Lane("rowstream-compute")
        self._stack.callback(self._compute.close)
        self._stack.callback(self._prefetch.close)
        resources = Resources(self.plan, self.run, lambda _text: None, resume, Disk())
        self._compute.run(resources.__enter__)
        self._stack.callback(lambda: self._compute.run(resources.__exit__, None, None, None))
        self.resources = resources
        self.store: Store = resources.store
        self.features, self.tables = self.plan.features, [spec.name for spec in self.plan.specs]
        self._ahead = Ahead(self.store)
        self.streaming: Streaming | None = None
        if settings.stream is not None:
            self.streaming = Streaming(settings.stream, resources, self.plan, self.run)
            self._stack.callback(self.streaming.abandon)
        if settings.dir is not None:
            live_rows = LiveRows(self.store, path)
            self._stack.callback(live_rows.close)
            live_rows.start()

    def _claim_dir(self, path: Path, record: dict[str, Any]) -> tuple[RunInfo, Resume | None]:
        """Raises RunDirTaken, OtherCheckpoint, LockedDirectory, and what is wrong with the newest checkpoint."""
        seed = self.settings.seed
        if not self.settings.resume or not (path / "run.json").exists():
            return self._stack.enter_context(claim(path, seed=seed, record=record, overwrite=False)), None

        def look(_described: dict[str, Any]) -> Resume:
            found = Resume.newest(path)
            found.check(self.plan.specs)
            found.accepted = {"loop": {"was": "a loop of the user's own", "is": "another run of it"}}
            return found

        run, resume = self._stack.enter_context(claim_again(path, look, record=record))
        return replace(run, resumed=resume.told()), resume

    @property
    def step(self) -> int:
        """The last step that has ended."""
        return self.store.fence.step

    @property
    def used(self) -> bool:
        """Whether rows have come into L1 or were loaded: then none can be loaded any more."""
        return self._used or self.step > 0

    @property
    def num_ahead(self) -> int:
        return self._waiting

    @property
    def counters(self) -> dict[str, int]:
        return {"dropped": self._ahead.dropped, "late": self._ahead.late}

    def announce(self, batch: BatchIds) -> None:
        self._check_open()
        if batch.num_samples:
            self._used = True
            self._waiting += 1
            self._prefetch.hand_over(self._ahead.announce, batch)

    def forward(self, batch: BatchIds) -> OpenStep:
        """Look a batch up, as a step whose backward is to come. One that still waits for its own is given up."""
        self._check_open()
        if self.streaming is not None:
            self.streaming.check()
        self._give_up()
        number, reservation = self.step + 1, None
        if batch.num_samples:
            self._used = True
            claimed, self._waiting = self._prefetch.run(self._claim, batch)
            reservation = replace(claimed, step=number)
        outputs = make_outputs(self.features, batch)
        self._open_step = OpenStep(number, reservation, batch, outputs, self.update)
        if reservation is not None:
            self._compute.run(self.store.gather, reservation, outputs.matrices_f)
        return self._open_step

    def _claim(self, batch: BatchIds) -> tuple[Reservation, int]:
        return self._ahead.claim(batch), len(self._ahead)

    def _give_up(self) -> None:
        step, self._open_step = self._open_step, None
        if step is not None and step.state is State.OPEN:
            step.state = State.GIVEN_UP
            if step.reservation is not None:
                self._prefetch.hand_over(self.store.release, step.reservation)

    def update(self, step: OpenStep, grads_f: Sequence[Matrix | None], weights: bool) -> Float32s | None:
        """End a step. Returns dL/dw [N] of the rows as they stood, if ``weights``."""
        self._check_open()
        found = self._compute.run(self._update, step, grads_f, weights)
        if step.reservation is not None:
            self._prefetch.hand_over(self._tidy, step.reservation)
        return found

    def _update(self, step: OpenStep, grads_f: Sequence[Matrix | None], weights: bool) -> Float32s | None:
        reservation = step.reservation
        if reservation is None:
            self.store.skip_step(step.number)
            return np.empty(0, np.float32)
        found = self.store.backend.weight_gradients(reservation.plan, grads_f) if weights else None
        self.store.update(reservation, grads_f)
        return found

    def _tidy(self, reservation: Reservation) -> None:
        self.store.release(reservation)
        self._tidy_up()
        self._ahead.reserve_waiting()

    def _tidy_up(self) -> None:
        """Behind a step."""
        self.store.clean_ahead()
        if self.streaming is not None:
            self.streaming.relieve()

    def look_up(self, batch: BatchIds) -> tuple[torch.Tensor, ...]:
        """Each feature's output from the rows of the last step's end: nothing is admitted, counted or marked."""
        self._check_open()
        return self._compute.run(self._look_up, batch)

    def _look_up(self, batch: BatchIds) -> tuple[torch.Tensor, ...]:
        unique = self.store.backend.deduplicate(batch)
        starts = unique.table_start_t.tolist()
        ids = {table: unique.ids_u[starts[t] : starts[t + 1]] for t, table in enumerate(self.tables)}
        with self.store.freeze(ids, blocking=True, reason="eval") as snapshot, torch.no_grad():
            rows_t = [
                torch.from_numpy(np.ascontiguousarray(snapshot.weights(table, ids[table]))) for table in self.tables
            ]
            return tuple(self._pooled(batch, unique, rows_t, f) for f in range(len(self.features.names)))

    def _pooled(self, batch: BatchIds, unique: Any, rows_t: list[torch.Tensor], f: int) -> torch.Tensor:
        start, end = int(batch.feature_start_f[f]), int(batch.feature_start_f[f + 1])
        t = int(self.features.tables_f[f])
        inverse_n = torch.from_numpy(unique.inverse_n[start:end].astype(np.int64) - int(unique.table_start_t[t]))
        weights_n = None if batch.weights_n is None else torch.from_numpy(batch.weights_n[start:end])
        pooling = POOLING_NAMES[int(self.features.poolings_f[f])]
        return pool_rows(rows_t[t], inverse_n, batch.offsets_fb[f] - start, weights_n, pooling)

    def load_rows(self, *given: Any) -> int:
        """``Store.load``, with what was announced set aside meanwhile. Raises BackwardAwaited, and what that raises."""
        self._check_open()
        if self.streaming is not None:
            self.streaming.check()
        if self._open_step is not None and self._open_step.state is State.OPEN:
            raise BackwardAwaited(self._open_step.number)
        self._used = True
        return self._prefetch.run(self._load_rows, *given)

    def _load_rows(self, *given: Any) -> int:
        """On ``prefetch``, which lets nobody reserve meanwhile."""
        self._ahead.set_aside()
        try:
            step: int = self._compute.run(self.store.load, *given)
            self._tidy_up()
        finally:
            self._ahead.reserve_waiting()
        return step

    def on_compute(self, call: Any, *args: Any) -> Any:
        """Have the lane that owns the device call it."""
        self._check_open()
        return self._compute.run(call, *args)

    def checkpoint(self) -> Path:
        """Save the state at the last step's end in the module's directory; durable when its path is returned."""
        self._check_open()
        self._markers += 1
        marker = Marker("checkpoint", self._markers)
        checkpoints = self.resources.checkpoints
        self._compute.run(checkpoints.freeze, marker)
        path = self._compute.run(checkpoints.write, marker)
        assert path is not None
        return path

    def _check_open(self) -> None:
        if self.closed:
            raise Closed

    def close(self) -> None:
        """Publish what is left and give everything back. A step that waits for its backward is given up. May be called twice."""
        if self.closed:
            return
        self._give_up()
        self.closed = True
        with self._stack:
            self._prefetch.run(self._ahead.clear)
            if self.streaming is not None:
                self.streaming.finish()


def close_at_exit(engine: Engine) -> None:
    """Close what the user left open when the interpreter ends: before it waits for threads, those of the row log among them, for ever."""
    held = weakref.ref(engine)

    def close() -> None:
        left = held()
        if left is not None:
            left.close()

    threading._register_atexit(close)  # type: ignore[attr-defined]
