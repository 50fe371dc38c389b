"""What TorchRec's ``KeyValueParams`` and the reference's RES parameters mean here: keys of a config.

| theirs | ours |
|---|---|
| ``ssd_storage_directory`` (comma-separated) | ``store.ssd.path`` |
| ``l2_cache_size`` (GB) | ``store.dram_bytes`` |
| ``max_l1_cache_size`` (MB), divided by the bytes of a row | ``store.l1_rows`` |
| ``enable_raw_embedding_streaming`` | ``stages.stream.enabled`` |
| ``res_chunk_size`` (rows) | ``stages.stream.chunk_rows`` |

Fields of ``WITHOUT_COUNTERPART`` change nothing here, each for the reason given there. Any other name is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.session.errors import UnknownParams

MAPPED: Final = (
    "ssd_storage_directory",
    "l2_cache_size",
    "max_l1_cache_size",
    "enable_raw_embedding_streaming",
    "res_chunk_size",
)
_ROCKSDB = "rows lie in the row log, not in RocksDB"
_INITIAL = "initial rows are computed, never written beforehand"
_SERVER = "rows are streamed to a transport, not to parameter servers"
_THREADS = "the stream has its own lanes"
_SHARD = "tables and rows are named by the config, and a table is whole"
WITHOUT_COUNTERPART: Final[Mapping[str, str]] = {
    "ssd_rocksdb_write_buffer_size": _ROCKSDB,
    "ssd_rocksdb_shards": _ROCKSDB,
    "gather_ssd_cache_stats": "figures are always kept: summary.json",
    "stats_reporter_config": "figures are always kept: summary.json",
    "use_passed_in_path": "a path that is given is used",
    "enable_async_update": "rows are always written behind training's back",
    "bulk_init_chunk_size": _INITIAL,
    "lazy_bulk_init_enabled": _INITIAL,
    "kvzch_tbe_config": "any int64 is an id, without a hash to fold it",
    "load_ckpt_without_opt": "--fresh-states of import",
    "ps_hosts": _SERVER,
    "ps_client_thread_num": _SERVER,
    "ps_max_key_per_request": _SERVER,
    "ps_max_local_index_length": _SERVER,
    "res_server_port": _SERVER,
    "res_store_shards": _SERVER,
    "res_enabled_tables": "all tables are streamed, so that a replica is the trainer at one step",
    "res_num_consumers": _THREADS,
    "res_num_uvm_hit_copy_threads": _THREADS,
    "res_num_hbm_copy_threads": _THREADS,
    "table_names": _SHARD,
    "table_offsets": _SHARD,
    "table_sizes": _SHARD,
}


@dataclass(frozen=True, slots=True)
class MappedParams:
    """``keys``: path of a key -> its value, for a config. ``left_out``: fields that were set, and why they mean nothing here."""

    keys: Mapping[str, Any]
    left_out: Mapping[str, str]


def map_params(params: Any, *, row_bytes: int) -> MappedParams:
    """``params``: a KeyValueParams, RESParams, or a mapping of their fields; None leaves a field as it is. ``row_bytes``: of the longest
    row, states included (``rows.layout``).

    Raises UnknownParams for fields that neither has, and for values that cannot be.
    """
    given = params if isinstance(params, Mapping) else _fields(params)
    unknown = [name for name in given if name not in MAPPED and name not in WITHOUT_COUNTERPART]
    if unknown:
        raise UnknownParams(unknown, "no such fields are known", [*MAPPED, *WITHOUT_COUNTERPART])
    told = {name: value for name, value in given.items() if value is not None}
    keys: dict[str, Any] = {}
    if "ssd_storage_directory" in told:
        paths = [path for path in str(told["ssd_storage_directory"]).split(",") if path]
        keys["store.ssd.path"] = paths[0] if len(paths) == 1 else paths
    if "l2_cache_size" in told and _number(told, "l2_cache_size") > 0:
        keys["store.dram_bytes"] = int(_number(told, "l2_cache_size") * (1 << 30))
    if "max_l1_cache_size" in told:
        keys["store.l1_rows"] = max(1, int(_number(told, "max_l1_cache_size") * (1 << 20)) // row_bytes)
    if "enable_raw_embedding_streaming" in told:
        keys["stages.stream.enabled"] = bool(told["enable_raw_embedding_streaming"])
    if "res_chunk_size" in told:
        keys["stages.stream.chunk_rows"] = int(_number(told, "res_chunk_size"))
    return MappedParams(keys, {name: WITHOUT_COUNTERPART[name] for name in told if name in WITHOUT_COUNTERPART})


def _fields(params: Any) -> Mapping[str, Any]:
    if dataclasses.is_dataclass(params):
        return {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    return dict(vars(params))


def _number(told: Mapping[str, Any], name: str) -> float:
    value = told[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UnknownParams([name], f"{value!r} is no size", ["a number from 0 on"])
    return value
