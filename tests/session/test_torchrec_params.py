"""Fields of TorchRec's KeyValueParams and of RES parameters as keys of a config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load
from pipeline.session.errors import UnknownParams
from pipeline.session.plan import make_plan
from pipeline.session.settings import Settings
from pipeline.session.torchrec_params import MAPPED, WITHOUT_COUNTERPART, map_params


@dataclass(frozen=True)
class KeyValueParams:
    """As TorchRec's has them."""

    ssd_storage_directory: str | None = None
    l2_cache_size: int | None = None
    max_l1_cache_size: int | None = None
    enable_raw_embedding_streaming: bool | None = None
    ps_hosts: tuple[Any, ...] | None = None


def test_they_make_a_config_that_can_run(tmp_path: Path) -> None:
    params = KeyValueParams(str(tmp_path / "ssd"), 2, 64, True, (("host", 1),))
    mapped = map_params(params, row_bytes=256)
    assert mapped.keys == {
        "store.ssd.path": str(tmp_path / "ssd"),
        "store.dram_bytes": 2 << 30,
        "store.l1_rows": 262_144,
        "stages.stream.enabled": True,
    }
    assert list(mapped.left_out) == ["ps_hosts"]
    settings = make_plan(load(["quickstart"], [f"{key}={value}" for key, value in mapped.keys.items()], Settings))
    assert settings.settings.store.dram_bytes == 2 << 30
    assert settings.settings.store.l1_rows == 262_144


def test_fields_of_streaming() -> None:
    mapped = map_params({"res_chunk_size": 5000, "res_store_shards": 4, "l2_cache_size": 0}, row_bytes=64)
    assert mapped.keys == {"stages.stream.chunk_rows": 5000}
    assert list(mapped.left_out) == ["res_store_shards"]


def test_unknown_fields_are_named() -> None:
    with pytest.raises(UnknownParams, match=r"res_chunk_sise.*res_chunk_size"):
        map_params({"res_chunk_sise": 1}, row_bytes=64)
    with pytest.raises(UnknownParams, match="max_l1_cache_size: 'large' is no size"):
        map_params({"max_l1_cache_size": "large"}, row_bytes=64)
    assert not set(MAPPED) & set(WITHOUT_COUNTERPART)
