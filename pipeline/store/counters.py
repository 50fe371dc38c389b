"""What the store counts. Each number only grows; all end in the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class StoreCounters:
    """Rows are counted once per batch that needs them."""

    hits: int = 0
    """Distinct rows that a batch found in L1."""
    misses: int = 0
    """Distinct rows that a batch did not find in L1."""
    evictions: int = 0
    """Rows that left L1."""
    write_backs: int = 0
    """Rows written to the tier below, as they left or ahead of it."""
    cleaned_ahead: int = 0
    """Those of them that were written ahead of need."""
    initial_rows: int = 0
    """Misses that no tier held: rows that were never updated."""
    expired_rows: int = 0
    """Rows of dynamic tables that ended, once each time."""
    loaded_rows: int = 0
    """Rows that ``Store.load`` wrote."""
    no_room: int = 0
    """Times a batch had to wait for pins to be released."""
    bad_gradients: Counter[str] = field(default_factory=Counter)
    """Rows that kept their values at a step, as their gradient had a NaN or an infinity, by table."""
    snapshots: Counter[str] = field(default_factory=Counter)
    """Snapshots taken, by reason."""
    copied_at_fence: int = 0
    """Fetches that needed no snapshot: few rows, all of them in memory."""
    abandoned: Counter[str] = field(default_factory=Counter)
    """Snapshots given up because shadow and spill were full, by reason."""
    saved_rows: int = 0
    """Old rows kept for open snapshots."""
    spilled_rows: int = 0
    """Those of them that went to disk."""
    spill_errors: int = 0
    """Times the spill file could not be written."""
    held_training_s: dict[str, float] = field(default_factory=dict)
    """Seconds that a step waited for a blocking snapshot to be read, by its reason."""
