"""What a run tells of itself: per stage, per channel and lane, and which stage the others wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.flow.channel import ChannelStats
from pipeline.flow.counters import SKIPPED, WAITED_S
from pipeline.flow.lag import LoopLag
from pipeline.flow.lanes import LaneStats

NEARLY = 0.9
"""Stages whose load is at least this part of the highest are taken as equally loaded."""


@dataclass(frozen=True, slots=True)
class StageReport:
    """One stage's figures. Fused stages share the waits of their visit: the first has the input's, the last the
    output's.

    ``service_s`` is the time in ``items``, ``process`` or ``work``, summed over concurrent items, without the time
    waited in channels, in ``ready``, for a lane's thread and what the stage counted as ``waited_s``.
    """

    name: str
    items_in: int
    items_out: int
    service_s: float
    input_wait_s: float
    output_wait_s: float
    ready_wait_s: float
    skipped: int
    retries: int
    concurrency: int
    counters: Mapping[str, int | float]

    @property
    def load_s(self) -> float:
        """Service time for each item that could be worked on at once."""
        return max(0.0, self.service_s - self.counters.get(WAITED_S, 0)) / self.concurrency


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did, or has done so far (``outcome`` is then "running").

    ``outcome`` is "end" (the source ended), "limit" (``max_items``) or the reason of the stop ("interrupt").
    """

    outcome: str
    wall_s: float
    items: int
    """Items that left the source."""
    stages: Mapping[str, StageReport]
    channels: Mapping[str, ChannelStats]
    lanes: Mapping[str, LaneStats]
    lag: LoopLag
    bottleneck: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bottleneck", find_bottleneck(tuple(self.stages.values())))

    @property
    def skipped(self) -> int:
        """Items that were skipped or dead-lettered, and what stages count as ``skipped`` themselves, such as bad lines."""
        return sum(stage.skipped + int(stage.counters.get(SKIPPED, 0)) for stage in self.stages.values())

    @property
    def loop_lag_ms(self) -> dict[str, float]:
        """How late the event loop was: p99 and max."""
        return {"p99": self.lag.p99_ms, "max": self.lag.max_ms}

    def stage_figures(self) -> dict[str, dict[str, Any]]:
        """By stage name, as plain values for JSON."""
        return {name: asdict(stage) for name, stage in self.stages.items()}

    def lane_figures(self) -> dict[str, dict[str, Any]]:
        """By lane name, as plain values for JSON."""
        return {name: asdict(lane) for name, lane in self.lanes.items()}

    def channel_figures(self) -> dict[str, dict[str, Any]]:
        """By channel name, as plain values for JSON."""
        return {name: asdict(channel) for name, channel in self.channels.items()}


def find_bottleneck(stages: Sequence[StageReport]) -> str:
    """The stage with the highest load; of nearly equal ones the last.

    The last, because a stage that waits for a later one by other ways than its channel (for room in L1, say) looks as
    busy as that one, while stages behind a slow one have nothing to do.
    """
    most = max(stage.load_s for stage in stages)
    return next(stage.name for stage in reversed(stages) if stage.load_s >= NEARLY * most)
