"""The composition root: makes the resources a plan names, in order, and gives them back in reverse."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import torch

from cuda.choose import choose_backend
from cuda.host import warm_up
from pipeline.flow.run_info import RunInfo
from pipeline.flow.step_limit import StepLimit
from pipeline.models.metrics import BinaryMetrics
from pipeline.models.optimizer import build_optimizer
from pipeline.rowlog.log import RowLog, RowLogOptions
from pipeline.rowlog.log.warm import warm_up as warm_up_log
from pipeline.rows.version import pack_version
from pipeline.session.checkpoints import Checkpoints
from pipeline.session.copies import Copies
from pipeline.session.dense_side import initial_model
from pipeline.session.disk import Disk
from pipeline.session.disk_room import check_disk_room
from pipeline.session.hooks import add_hooks
from pipeline.session.plan import Plan
from pipeline.session.resume import Resume
from pipeline.session.retention import Retention
from pipeline.session.row_source import StoreRowSource
from pipeline.session.totals import Totals
from pipeline.store import CacheTier, DramTier, Expired, SsdTier, Store, Tier
from pipeline.store import warm_up as warm_up_store

READ_DEPTH = 32


class Resources:
    """Everything that is open during a run. A context manager; ``by_name`` is what stages are given."""

    def __init__(self, plan: Plan, run: RunInfo, say: Any, resume: Resume | None, disk: Disk) -> None:
        self.plan, self.run, self._say, self._resume = plan, run, say, resume
        self._disk = disk
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
        warm_up_log()
        self.store = self._open_store(backend)
        self.model = initial_model(plan)
        self.optimizer = build_optimizer(self.model, settings.dense_optimizer)
        if self._resume is not None:
            self._go_on(self._resume)
        self.metrics = BinaryMetrics()
        add_hooks(self.store, settings.hooks, self._stack.callback)
        self.totals = Totals([spec.dim for spec in plan.specs])
        self.store.on_step(self.totals.at_fence)
        if settings.store.ssd is None:
            self.store.on_expired(self._forget_saved)
        copy_to, keep = settings.checkpoint.copy_to, settings.checkpoint.keep
        copies = None if copy_to is None else Copies(self._disk.files, self.run, copy_to, keep)
        self.checkpoints = Checkpoints(
            self.run,
            self.store,
            self.log,
            self.model,
            self.optimizer,
            self._disk.files,
            self._retention,
            self._since,
            copies,
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
            "files": self._disk.files,
            "run": self.run,
            "step_limit": self.step_limit,
            "say": self._say,
        }

    def _go_on(self, resume: Resume) -> None:
        """Rows that the tiers do not find on disk by themselves are read; all else of a checkpoint always is."""
        self._say(f"resuming generation {self.run.generation} behind step {resume.step}")
        if resume.accepted:
            self._say(f"a fork: from here on with another {', '.join(resume.accepted)}")
        for what in resume.damaged:
            self._say(f"an older checkpoint is left out: {what}")
        if self.plan.settings.store.ssd is None or not self._retention.goes_on:
            resume.load_rows(self.store)
        self.store.fence.begin_after(resume.step)
        resume.load_dynamic(self.store)
        resume.load_dense(self.model, self.optimizer)

    def _forget_saved(self, _step: int, expired: Expired) -> None:
        """The checkpoints' own log hears of no row that ends, as it is no tier's. Inside the fence."""
        for number, ids_x in expired.by_table():
            self.log.delete(self.plan.specs[number].name, ids_x)

    @property
    def _since(self) -> int:
        """The version up to which the log holds all rows: that of the checkpoint it began with."""
        if self._resume is None or self._resume.reader is None or not self._retention.goes_on:
            return 0
        manifest = self._resume.reader.manifest
        return pack_version(manifest.generation, manifest.step)

    def _open_log(self) -> None:
        """The log that checkpoints name segments of: the SSD tier's, which opens it, or else their own."""
        settings, disk, files = self.plan.settings, self.plan.settings.store.ssd, self._disk.files
        options = RowLogOptions() if disk is None else disk
        own = [str(self.run.dir / "checkpoints" / "rows")]
        directories = [os.path.abspath(path) for path in (own if disk is None else disk.directories(self.run.dir))]
        if disk is not None:
            check_disk_room(directories, disk.bytes)
        depth, direct = (READ_DEPTH, False) if disk is None else (disk.depth, disk.direct)
        checkpoints = () if self._resume is None else self._resume.checkpoints
        self._retention = Retention(files, settings.checkpoint.keep, checkpoints, directories)
        self.log = RowLog(
            directories,
            files,
            lambda: self._disk.reads(depth, direct),
            options,
            beginning=self._retention.beginning,
        )
        if disk is None:
            self._stack.callback(self.log.close)
            self.log.open(self.plan.specs)

    def _make_tier(self) -> Tier:
        options = self.plan.settings.store
        if options.ssd is None and options.tier is None:
            return DramTier(options.dram_bytes)
        below = SsdTier(self.log) if options.tier is None else options.tier.make()
        if options.dram_bytes is None:
            return below
        return CacheTier(below, options.dram_bytes, options.policy, options.clean_ahead)

    def _open_store(self, backend: Any) -> Store:
        plan = self.plan
        spill = self.run.dir / "spill"
        self._disk.files.make_dirs(str(spill))
        self._open_log()
        tier = self._make_tier()
        store = Store(
            plan.specs,
            plan.rules,
            plan.features,
            backend,
            tier,
            plan.settings.store,
            rates=plan.rates,
            generation=self.run.generation,
            spill_path=str(spill),
            files=self._disk.files,
            dynamic=plan.dynamic,
        )
        self._stack.callback(store.close)
        store.open()
        self._retention.opened(self.log)
        return store
