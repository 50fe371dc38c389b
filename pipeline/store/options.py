"""The options of the store."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from pipeline.store.policy import find_policy
from pipeline.store.ssd_options import SsdOptions


def _refuse(_value: Any) -> None:
    raise ValueError(
        "the tiers below L1 have keys of their own: memory (store.dram_bytes bounds it), a disk (store.ssd), or with both "
        "memory over the disk; a list of tiers comes later: leave it out"
    )


NotYet = Annotated[None, BeforeValidator(_refuse)]
"""A key whose place is fixed already, and which is refused until what it configures is there."""


class StoreOptions(BaseModel):
    """L1, the tiers below it and the room for snapshots."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    l1_rows: int = Field(
        default=262_144,
        ge=1,
        le=2**31 - 1,
        description="rows that L1 holds, all tables together; at least one batch's need",
    )
    policy: str = Field(
        default="lookahead",
        description="which rows leave L1 first: lru, lfu, lookahead, or package.module:Class of your own",
    )
    clean_ahead: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="share of L1, next to leave, that is kept written back; 0: only as it leaves",
    )
    dram_bytes: int | None = Field(
        default=None,
        ge=1,
        description="most bytes the DRAM tier may hold, index included; with store.ssd it is a write-back cache over the "
        "disk; not set: no bound, and with store.ssd no DRAM tier",
    )
    shadow_bytes: int = Field(
        default=256 << 20,
        ge=0,
        description="memory for old rows that open snapshots still need, all snapshots together",
    )
    spill_bytes: int = Field(
        default=1 << 30,
        ge=0,
        description="disk for such rows when shadow_bytes are full, with 64 bytes of memory each; 0: none",
    )
    ssd: SsdOptions | None = Field(
        default=None,
        description="keep the rows that leave L1 on disk, behind memory of store.dram_bytes if that is set; {} for the "
        "defaults; not set: in memory",
    )
    tiers: NotYet = Field(default=None, exclude=True, description="not in this version")

    @field_validator("policy")
    @classmethod
    def policy_exists(cls, policy: str) -> str:
        find_policy(policy)
        return policy
