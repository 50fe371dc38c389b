"""What a replica has done, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class ReplicaCounters:
    """Written by the applier alone; readers may see a count that is one cut old."""

    cuts: int = 0
    """Ordinary cuts applied."""
    snapshot_cuts: int = 0
    """Snapshot cuts loaded."""
    rows: int = 0
    """Rows written, and below, rows forgotten by tombstones or because a snapshot cut did not name them."""
    rows_forgotten: int = 0
    frames: int = 0
    """Frames that came, and their bytes as they travelled."""
    bytes: int = 0
    duplicates: int = 0
    """Frames and commits dropped because they were at or below the applied position."""
    abandoned: int = 0
    """Cuts begun by the trainer and never committed, or not on every shard."""
    zombie_frames: int = 0
    """Frames dropped because a trainer of an older generation published them behind the header of a newer one."""
    lacking: int = 0
    """Committed cuts passed over because cuts before them were missing, counted for each shard; a snapshot cut made up for them, or
    will.
    """
    passed_over: int = 0
    """Cuts that brought nothing new: their trainer had to begin below what the replica holds, because its stream was gone."""
    rescans: int = 0
    """How often reading went back in the stream."""
    refusals: int = 0
    """Frames refused with an error."""
    expired_views: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)
