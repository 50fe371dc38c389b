"""Follows a stream and answers lookups; see README.md. Loads no torch, and a name's file when it is first asked for: a program that
only asks a service (``pipeline.replica.client``) needs numpy alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.replica.counters import ReplicaCounters
    from pipeline.replica.errors import (
        BadTarget,
        CheckpointOfOther,
        DamagedCut,
        DamagedFrame,
        NoCutForCheckpoint,
        NoHeader,
        NoStartingPoint,
        NotKept,
        NotRetained,
        OtherRun,
        OtherShard,
        OtherShards,
        OtherTables,
        Refused,
        ReplicaClosed,
        ReplicaError,
        ReplicaFailed,
        RetainedGone,
        RowsElsewhere,
        StepFell,
        TableChanged,
        TargetChanged,
        TargetFailed,
        TargetUnreachable,
        UnknownColumn,
        UnknownTable,
        ViewExpired,
    )
    from pipeline.replica.freshness import Freshness
    from pipeline.replica.replica import Lag, Replica
    from pipeline.replica.retained import RetainedCut
    from pipeline.replica.view import View

__all__ = [
    "BadTarget",
    "CheckpointOfOther",
    "DamagedCut",
    "DamagedFrame",
    "Freshness",
    "Lag",
    "NoCutForCheckpoint",
    "NoHeader",
    "NoStartingPoint",
    "NotKept",
    "NotRetained",
    "OtherRun",
    "OtherShard",
    "OtherShards",
    "OtherTables",
    "Refused",
    "Replica",
    "ReplicaClosed",
    "ReplicaCounters",
    "ReplicaError",
    "ReplicaFailed",
    "RetainedCut",
    "RetainedGone",
    "RowsElsewhere",
    "StepFell",
    "TableChanged",
    "TargetChanged",
    "TargetFailed",
    "TargetUnreachable",
    "UnknownColumn",
    "UnknownTable",
    "View",
    "ViewExpired",
]

_FILES = {
    "ReplicaCounters": "counters",
    "Freshness": "freshness",
    "Lag": "replica",
    "Replica": "replica",
    "RetainedCut": "retained",
    "View": "view",
}
"""Where the names lie; all others are errors."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"pipeline.replica.{_FILES.get(name, 'errors')}"), name)
