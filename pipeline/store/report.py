"""The store's figures as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.store.cache_tier import CacheTier
from pipeline.store.ssd import SsdTier

if TYPE_CHECKING:
    from pipeline.store.residency import Residency
    from pipeline.store.snapshots import Snapshots


def report(residency: Residency, snapshots: Snapshots) -> dict[str, Any]:
    """Counters, slots by state, tier and shadow; what msgpack and JSON can carry."""
    counted = {
        name: dict(value) if isinstance(value, dict) else value for name, value in vars(residency.counters).items()
    }
    tier = residency.tier
    last = tier.below if isinstance(tier, CacheTier) else tier
    looked = residency.counters.hits + residency.counters.misses
    return {
        "l1_rows": residency.l1_rows,
        **residency.machine.counts(),
        **counted,
        "hit_rate": residency.counters.hits / looked if looked else 0.0,
        "tier": tier.name,
        "tier_rows": {spec.name: tier.count(spec.name) for spec in residency.specs},
        **({"dram": dict(tier.stats())} if isinstance(tier, CacheTier) else {}),
        **({"ssd": dict(last.stats())} if isinstance(last, SsdTier) else {}),
        "open_snapshots": len(snapshots.open),
        "shadow_bytes": snapshots.room.memory_bytes,
        "spill_bytes": snapshots.room.spill_bytes,
    }
