"""The asyncio runtime. Knows no rows: neither numpy nor torch is loaded from here."""

from pipeline.flow.channel import Channel, ChannelStats
from pipeline.flow.errors import (
    Aborted,
    ClosedChannel,
    EndOfChannel,
    FlowError,
    GraphError,
    LaneError,
    Problem,
    StageError,
)
from pipeline.flow.every import Every
from pipeline.flow.graph import Graph, PlannedStage, StageNode, Visit
from pipeline.flow.lag import LoopLag
from pipeline.flow.lanes import LaneOptions, Lanes, LaneStats, ThreadLane
from pipeline.flow.loop import run_loop
from pipeline.flow.perturb import Perturb, SpanHook
from pipeline.flow.planner import plan
from pipeline.flow.registry import find_stage, stage_names
from pipeline.flow.runner import Runner
from pipeline.flow.runtime_options import QueueOptions, RuntimeOptions
from pipeline.flow.stage import Counters, Lane, Many, Marker, Source, Stage, StageContext, StageOptions
from pipeline.flow.stats import RunReport, StageReport

__all__ = [
    "Aborted",
    "Channel",
    "ChannelStats",
    "ClosedChannel",
    "Counters",
    "EndOfChannel",
    "Every",
    "FlowError",
    "Graph",
    "GraphError",
    "Lane",
    "LaneError",
    "LaneOptions",
    "LaneStats",
    "Lanes",
    "LoopLag",
    "Many",
    "Marker",
    "Perturb",
    "PlannedStage",
    "Problem",
    "QueueOptions",
    "RunReport",
    "Runner",
    "RuntimeOptions",
    "Source",
    "SpanHook",
    "Stage",
    "StageContext",
    "StageError",
    "StageNode",
    "StageOptions",
    "StageReport",
    "ThreadLane",
    "Visit",
    "find_stage",
    "plan",
    "run_loop",
    "stage_names",
]
