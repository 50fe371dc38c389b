"""The fields of KeyValueParams and RESParams become options of store and stream, or are named."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from pipeline.modules import BadSettings, EmbeddingBags
from pipeline.modules.torchrec_options import MAPPED, PASSED_OVER, REFUSED, map_options
from tests.modules.peers import torchrec
from tests.modules.small import TABLES, train


def test_they_build_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    given = {
        "ssd_storage_directory": f"{tmp_path}/a@local_rank,{tmp_path}/b",
        "l2_cache_size": 1,
        "max_l1_cache_size": 2,
        "bulk_init_chunk_size": 100,
        "enable_raw_embedding_streaming": True,
        "res_store_shards": 1,
    }
    found = map_options(given, row_bytes=4096)
    assert found.store == {
        "l1_rows": 512,
        "dram_bytes": 1 << 30,
        "ssd": {"path": [f"{tmp_path}/a3", f"{tmp_path}/b"]},
    }
    assert found.stream == {}
    assert sorted(found.passed_over) == ["bulk_init_chunk_size", "res_store_shards"]
    with EmbeddingBags(TABLES, store=found.store, stream=found.stream, dir=tmp_path / "run") as module:
        train(module, 1)
    assert list((tmp_path / "a3").iterdir())
    assert map_options({"enable_raw_embedding_streaming": False}, row_bytes=64).stream is None


def test_tables_that_they_do_not_enable_are_not_streamed() -> None:
    given = {"enable_raw_embedding_streaming": True, "table_names": ["a", "b", "c"], "res_enabled_tables": ["b"]}
    found = map_options(given, row_bytes=64)
    assert found.stream == {"tables": {"a": {"enabled": False}, "c": {"enabled": False}}}
    assert not found.passed_over
    assert map_options({**given, "res_enabled_tables": []}, row_bytes=64).stream == {}


YOUNGER = {
    "res_enabled_tables",
    "res_chunk_size",
    "res_num_consumers",
    "res_num_hbm_copy_threads",
    "res_num_uvm_hit_copy_threads",
}
"""Keys that came after the release that is tested with."""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"l3_cache_size": 1, "colour": 2}, "l3_cache_size: unknown.*colour: unknown"),
        ({"ps_hosts": (("::1", 2000),)}, "no parameter server"),
        ({"res_enabled_tables": ["t"]}, "every table is streamed"),
        ({"res_enabled_tables": ["t"], "table_names": ["a", "b"]}, r"no table 't' in table_names \['a', 'b'\]"),
        ({"max_l1_cache_size": 1}, "no row of 2000000 bytes fits"),
        ({"l2_cache_size": -1}, "l2_cache_size=-1"),
        (7, "not int"),
    ],
)
def test_what_has_no_counterpart_is_named(given: Any, said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        map_options(given, row_bytes=2_000_000)


def test_every_field_of_theirs_is_known_and_their_defaults_change_nothing() -> None:
    torchrec()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import RESParams
        from torchrec.distributed.types import KeyValueParams
    for params in (KeyValueParams(), RESParams()):
        found = map_options(params, row_bytes=64)
        assert (found.store, found.stream) == ({}, None)
    theirs = {*KeyValueParams.__dataclass_fields__, *RESParams.__dataclass_fields__}
    assert not theirs & YOUNGER
    assert theirs | YOUNGER == {*MAPPED, *PASSED_OVER, *REFUSED}
