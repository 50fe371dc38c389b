"""The composition root: makes the resources a plan names, in order, and gives them back in reverse."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from cuda.choose import choose_backend
from cuda.host import warm_up
from pipeline.files import RealFiles
from pipeline.flow.run_info import RunInfo
from pipeline.flow.step_limit import StepLimit
from pipeline.models.metrics import BinaryMetrics
from pipeline.models.optimizer import build_optimizer
from pipeline.rowlog.log import RowLog
from pipeline.rowlog.log.real_reads import RealReads
from pipeline.session.checkpoints import Checkpoints
from pipeline.session.dense_side import initial_model
from pipeline.session.plan import Plan
from pipeline.session.resume import Resume
from pipeline.session.row_source import StoreRowSource
from pipeline.session.totals import Totals
from pipeline.store import CacheTier, DramTier, SsdTier, Store, Tier
from pipeline.store import warm_up as warm_up_store


class Resources:
    """Everything that is open during a run. A context manager; ``by_name`` is what stages are given."""

    def __init__(self, plan: Plan, run: RunInfo, say: Any, resume: Resume | None = None) -> None:
        self.plan, self.run, self._say, self._resume = plan, run, say, resume
        self._stack = ExitStack()
        self.by_name: dict[str, Any] = {}

    def __enter__(self) -> Resources:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        settings, plan = self.plan.settings, self.plan
        torch.set_num_threads(settings.run.threads)
        backend = choose_backend(settings.device, settings.run.threads)
        warm_up(self._say)
        warm_up_store()
        self.store = self._open_store(backend)
        self.model = initial_model(plan)
        self.optimizer = build_optimizer(self.model, settings.dense_optimizer)
        if self._resume is not None:
            self._say(f"resuming generation {self.run.generation} behind step {self._resume.step}")
            self._resume.load_rows(self.store)
            self._resume.load_dense(self.model, self.optimizer)
        self.metrics = BinaryMetrics()
        self.totals = Totals([spec.dim for spec in plan.specs])
        self.store.on_step(self.totals.at_fence)
        self.checkpoints = Checkpoints(
            self.run, self.store, plan.specs, self.model, self.optimizer, settings.checkpoint.keep
        )
        self.stream_report: dict[str, Any] = {}
        self.step_limit = StepLimit(settings.run.steps)
        self.eval_results: list[dict[str, Any]] = []
        self.by_name = {
            "backend": backend,
            "store": self.store,
            "features": plan.features,
            "table_names": tuple(spec.name for spec in plan.specs),
            "model": self.model,
            "dense_optimizer": self.optimizer,
            "metrics": self.metrics,
            "eval_results": self.eval_results,
            "checkpoints": self.checkpoints,
            "row_source": StoreRowSource(self.store, plan.specs, self.model, self.run),
            "stream_report": self.stream_report,
            "run": self.run,
            "step_limit": self.step_limit,
        }

    def _make_tier(self) -> Tier:
        options = self.plan.settings.store
        if options.ssd is None:
            return DramTier(options.dram_bytes)
        ssd = options.ssd
        log = RowLog(ssd.directories(self.run.dir), RealFiles(), lambda: RealReads(ssd.depth, ssd.direct), ssd)
        disk = SsdTier(log)
        if options.dram_bytes is None:
            return disk
        return CacheTier(disk, options.dram_bytes, options.policy, options.clean_ahead)

    def _open_store(self, backend: Any) -> Store:
        plan = self.plan
        spill = self.run.dir / "spill"
        spill.mkdir(exist_ok=True)
        tier = self._make_tier()
        store = Store(
            plan.specs,
            plan.rules,
            plan.features,
            backend,
            tier,
            plan.settings.store,
            generation=self.run.generation,
            spill_path=str(spill),
        )
        self._stack.callback(store.close)
        store.open()
        return store
