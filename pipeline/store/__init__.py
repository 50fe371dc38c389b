"""Rows in tiers: L1 slots, the DRAM and SSD tiers, the fence, snapshots, and the Store that composes them."""

from pipeline.store.admission import AdmissionRule
from pipeline.store.cache_size import rows_within
from pipeline.store.cache_tier import CacheTier
from pipeline.store.counters import StoreCounters
from pipeline.store.dram import DramTier
from pipeline.store.dynamic import DynamicTables
from pipeline.store.errors import (
    BadFetch,
    BadHook,
    BadLoad,
    BatchesInFlight,
    BrokenFence,
    CacheTooLarge,
    CacheTooSmall,
    CleaningFailed,
    HookFailed,
    L1TooSmall,
    NotFrozen,
    OutOfStep,
    PolicyNotFound,
    SnapshotAbandoned,
    StoreError,
    TierFull,
    TransitionError,
    UnknownTable,
)
from pipeline.store.expiry import Expired, ExpiryRule
from pipeline.store.fence import Fence
from pipeline.store.fetched import FetchedRows
from pipeline.store.hooks import HookPoint
from pipeline.store.options import StoreOptions
from pipeline.store.policy import Policy, SlotUse
from pipeline.store.reservation import Reservation
from pipeline.store.saving import save_changed
from pipeline.store.snapshot import Snapshot, SnapshotRows
from pipeline.store.ssd import SsdTier
from pipeline.store.ssd_options import SsdOptions
from pipeline.store.store import StepListener, Store
from pipeline.store.tier import Tier, TierRows
from pipeline.store.warm import warm_up

__all__ = [
    "AdmissionRule",
    "BadFetch",
    "BadHook",
    "BadLoad",
    "BatchesInFlight",
    "BrokenFence",
    "CacheTier",
    "CacheTooLarge",
    "CacheTooSmall",
    "CleaningFailed",
    "DramTier",
    "DynamicTables",
    "Expired",
    "ExpiryRule",
    "Fence",
    "FetchedRows",
    "HookFailed",
    "HookPoint",
    "L1TooSmall",
    "NotFrozen",
    "OutOfStep",
    "Policy",
    "PolicyNotFound",
    "Reservation",
    "SlotUse",
    "Snapshot",
    "SnapshotAbandoned",
    "SnapshotRows",
    "SsdOptions",
    "SsdTier",
    "StepListener",
    "Store",
    "StoreCounters",
    "StoreError",
    "StoreOptions",
    "Tier",
    "TierFull",
    "TierRows",
    "TransitionError",
    "UnknownTable",
    "rows_within",
    "save_changed",
    "warm_up",
]
