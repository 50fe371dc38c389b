"""Follows a stream and answers lookups; see README.md. Loads no torch."""

from pipeline.replica.counters import ReplicaCounters
from pipeline.replica.errors import (
    DamagedCut,
    DamagedFrame,
    NoHeader,
    NoStartingPoint,
    OlderGeneration,
    OtherRun,
    Refused,
    ReplicaClosed,
    ReplicaError,
    ReplicaFailed,
    StepFell,
    TableChanged,
    UnknownTable,
    ViewExpired,
)
from pipeline.replica.freshness import Freshness
from pipeline.replica.replica import Lag, Replica
from pipeline.replica.view import View

__all__ = [
    "DamagedCut",
    "DamagedFrame",
    "Freshness",
    "Lag",
    "NoHeader",
    "NoStartingPoint",
    "OlderGeneration",
    "OtherRun",
    "Refused",
    "Replica",
    "ReplicaClosed",
    "ReplicaCounters",
    "ReplicaError",
    "ReplicaFailed",
    "StepFell",
    "TableChanged",
    "UnknownTable",
    "View",
    "ViewExpired",
]
