"""One stage of a run: the user's object and what the runtime counts about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.flow.channel import ChannelStats
from pipeline.flow.counters import StageCounters
from pipeline.flow.failures import stage_error
from pipeline.flow.graph import PlannedStage
from pipeline.flow.stage import Stage
from pipeline.flow.stats import StageReport


@dataclass(slots=True, eq=False)
class Member:
    """Counts are written by whoever works for the stage: one at a time."""

    planned: PlannedStage
    stage: Stage
    counters: StageCounters = field(default_factory=StageCounters)
    items_in: int = 0
    items_out: int = 0
    service_ns: int = 0
    ready_wait_ns: int = 0
    skipped: int = 0
    retries: int = 0

    @classmethod
    def of(cls, planned: PlannedStage) -> Member:
        """Make the stage's object; it is not opened yet. Raises StageError."""
        try:
            return cls(planned, planned.stage_class(planned.options))
        except Exception as error:
            raise stage_error(planned.name, error) from error

    @property
    def name(self) -> str:
        return self.planned.name

    def report(self, inbox: ChannelStats | None, outbox: ChannelStats | None) -> StageReport:
        """A snapshot; the channels are those whose waits this stage is responsible for."""
        return StageReport(
            name=self.name,
            items_in=self.items_in,
            items_out=self.items_out,
            service_s=self.service_ns / 1e9,
            input_wait_s=0.0 if inbox is None else inbox.receive_wait_s,
            output_wait_s=0.0 if outbox is None else outbox.send_wait_s,
            ready_wait_s=self.ready_wait_ns / 1e9,
            skipped=self.skipped,
            retries=self.retries,
            concurrency=self.planned.runtime.concurrency,
            counters=self.counters.snapshot(),
        )
