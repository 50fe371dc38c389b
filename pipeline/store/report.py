"""The store's figures as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.store.ssd import SsdTier

if TYPE_CHECKING:
    from pipeline.store.residency import Residency
    from pipeline.store.snapshots import Snapshots


def report(residency: Residency, snapshots: Snapshots) -> dict[str, Any]:
    """Counters, slots by state, tier and shadow; what msgpack and JSON can carry."""
    counted = {
        name: dict(value) if isinstance(value, dict) else value for name, value in vars(residency.counters).items()
    }
    looked = residency.counters.hits + residency.counters.misses
    return {
        "l1_rows": residency.l1_rows,
        **residency.machine.counts(),
        **counted,
        "hit_rate": residency.counters.hits / looked if looked else 0.0,
        "tier": residency.tier.name,
        "tier_rows": {spec.name: residency.tier.count(spec.name) for spec in residency.specs},
        **({"ssd": dict(residency.tier.stats())} if isinstance(residency.tier, SsdTier) else {}),
        "open_snapshots": len(snapshots.open),
        "shadow_bytes": snapshots.room.memory_bytes,
        "spill_bytes": snapshots.room.spill_bytes,
    }
