"""The options of the store."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from pipeline.store.policy import find_policy
from pipeline.store.ssd_options import SsdOptions
from pipeline.store.tier import Tier
from pipeline.store.tier_list import find_tier, merge_tiers


class OwnTier(BaseModel):
    """``use`` names a class that implements ``pipeline.store.Tier``; all other keys are its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str = Field(description="package.module:Class of a tier of your own, in place of DRAM or SSD")

    @field_validator("use")
    @classmethod
    def exists(cls, use: str) -> str:
        find_tier(use)
        return use

    def make(self) -> Tier:
        tier: Tier = find_tier(self.use)(**(self.model_extra or {}))
        return tier


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
    dram_bytes: ByteSize | None = Field(
        default=None,
        ge=1,
        description="most bytes the DRAM tier may hold, index included, as 8GB or a number; with store.ssd a write-back cache over the "
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
    bad_gradients: Literal["stop", "skip"] = Field(
        default="stop",
        description="a row whose gradient has a NaN or an infinity: stop ends the run with an error, skip leaves the row as it is; both "
        "count it",
    )
    fetch_rows: int = Field(default=1 << 20, ge=1, description="most rows that one fetch may ask for")
    load_rows: int = Field(default=1 << 20, ge=1, description="most rows that one load may bring")
    ssd: SsdOptions | None = Field(
        default=None,
        description="keep the rows that leave L1 on disk, behind memory of store.dram_bytes if that is set; {} for the "
        "defaults; not set: in memory",
    )
    tier: OwnTier | None = Field(
        default=None, description="a tier of your own below L1; with store.dram_bytes memory over it"
    )
    tiers: list[dict[str, Any]] | None = Field(
        default=None,
        description="the same as a list, from the top: {l1: {rows: ...}}, {dram: {bytes: ...}}, {ssd: {path: ..., bytes: ...}} or "
        "{use: ...}",
    )

    @model_validator(mode="before")
    @classmethod
    def tiers_are_keys(cls, given: Any) -> Any:
        """What ``tiers`` lists is entered under the keys of its own; nothing may be given both ways."""
        return merge_tiers(given) if isinstance(given, dict) and given.get("tiers") else given

    @model_validator(mode="after")
    def one_lowest_tier(self) -> StoreOptions:
        if self.ssd is not None and self.tier is not None:
            raise ValueError("store.ssd and store.tier are both the lowest tier: keep one of them")
        return self

    @field_validator("policy")
    @classmethod
    def policy_exists(cls, policy: str) -> str:
        find_policy(policy)
        return policy
