"""``store.tiers`` says the same as the keys of its own, and nothing twice."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.store import StoreOptions


@pytest.mark.parametrize(
    ("tiers", "keys"),
    [
        ([{"l1": {"rows": 500}}], {"l1_rows": 500}),
        ([{"dram": {"bytes": "8MB"}}], {"dram_bytes": 8_000_000}),
        (
            [{"l1": {"rows": 500}}, {"dram": {"bytes": "1MiB"}}, {"ssd": {"path": "/disk", "bytes": "20GB"}}],
            {"l1_rows": 500, "dram_bytes": 1 << 20, "ssd": {"path": "/disk", "bytes": 20_000_000_000}},
        ),
        ([{"ssd": {}}], {"ssd": {}}),
        (
            [{"use": "tests.e2e.own_tier:OwnTier", "name": "mine"}],
            {"tier": {"use": "tests.e2e.own_tier:OwnTier", "name": "mine"}},
        ),
    ],
)
def test_a_list_is_the_keys(tiers: list[dict[str, Any]], keys: dict[str, Any]) -> None:
    assert StoreOptions.model_validate({"tiers": tiers}) == StoreOptions.model_validate(keys)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"tiers": [{"dram": {"bytes": 9}}], "dram_bytes": 8},
            "store.tiers lists dram, and store.dram_bytes is given too",
        ),
        ({"tiers": [{"ssd": {}}, {"dram": {"bytes": 9}}]}, "listed from the top"),
        ({"tiers": [{"ssd": {}}, {"ssd": {}}]}, "each once"),
        ({"tiers": [{"ssd": {}}, {"use": "tests.e2e.own_tier:OwnTier"}]}, "out of place"),
        ({"ssd": {}, "tier": {"use": "tests.e2e.own_tier:OwnTier"}}, "both the lowest tier: keep one"),
        ({"tiers": [{"ssd": {}}], "tier": {"use": "tests.e2e.own_tier:OwnTier"}}, "both the lowest tier: keep one"),
        ({"tiers": [{"hbm": {}}]}, "is no tier; one is written"),
        ({"tiers": [{"l1": {"row": 3}}]}, "l1 has one key, rows"),
        ({"tiers": [{"use": "nowhere:Tier"}]}, "cannot import 'nowhere'"),
        ({"tiers": [{"use": "tests.e2e.own_tier:Other"}]}, "has no 'Other'"),
        ({"tiers": {"ssd": {}}}, "tiers is a list"),
        ({"dram_bytes": "many"}, "dram_bytes"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        StoreOptions.model_validate(given)
    assert told in str(refused.value)
