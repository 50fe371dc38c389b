"""TorchRec's ``KeyValueParams`` and FBGEMM's ``RESParams`` in the words of this store and stream.

    ssd_storage_directory            store.ssd.path; "@local_rank" becomes the environment's LOCAL_RANK, commas separate directories
    l2_cache_size (GB)               store.dram_bytes
    max_l1_cache_size (MB)           store.l1_rows, by the length of the longest row
    enable_raw_embedding_streaming   stream
    res_enabled_tables, table_names  stream.tables: the others are not streamed; empty: all are
    all else                         nothing: passed over where nothing is lost by it, refused where something would be

They are read by name from an object's fields or a mapping, so neither library is needed. A name that neither has is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final

from pipeline.modules.errors import BadSettings

PASSED_OVER: Final[Mapping[str, str]] = {
    "ssd_rocksdb_write_buffer_size": "rows are appended to segments, there is no such buffer",
    "ssd_rocksdb_shards": "one log serves all threads",
    "gather_ssd_cache_stats": "they are always counted",
    "stats_reporter_config": "figures are in summaries and Store.stats()",
    "use_passed_in_path": "a directory that is given is used",
    "enable_async_update": "rows are written back ahead of their eviction anyway",
    "bulk_init_chunk_size": "a row never updated is not stored",
    "lazy_bulk_init_enabled": "a row never updated is not stored",
    "res_server_port": "the stream is files that replicas follow",
    "res_store_shards": "one writer has one stream",
    "res_chunk_size": "frames have a size of their own",
    "res_num_consumers": "the stream has a lane of its own",
    "res_num_uvm_hit_copy_threads": "the stream has a lane of its own",
    "res_num_hbm_copy_threads": "the stream has a lane of its own",
    "table_offsets": "ids are whole, not offsets into a shard",
    "table_sizes": "tables have no size",
}
REFUSED: Final[Mapping[str, str]] = {
    "kvzch_tbe_config": "set the table's own options instead",
    "load_ckpt_without_opt": "rows always go with their states",
    "ps_hosts": "there is no parameter server",
    "ps_client_thread_num": "there is no parameter server",
    "ps_max_key_per_request": "there is no parameter server",
    "ps_max_local_index_length": "there is no parameter server",
}
MAPPED: Final = (
    "ssd_storage_directory",
    "l2_cache_size",
    "max_l1_cache_size",
    "enable_raw_embedding_streaming",
    "res_enabled_tables",
    "table_names",
)


@dataclass(frozen=True, slots=True)
class MappedOptions:
    """``store`` and ``stream`` as a module or a config takes them. ``passed_over``: why, by name, what was set has no counterpart."""

    store: dict[str, Any] = field(default_factory=dict)
    stream: dict[str, Any] | None = None
    passed_over: dict[str, str] = field(default_factory=dict)


def map_options(params: Any, *, row_bytes: int) -> MappedOptions:
    """``row_bytes``: the longest row with its states. Raises BadSettings that names everything unknown and impossible."""
    given = _given(params)
    known = {*MAPPED, *PASSED_OVER, *REFUSED}
    wrong = [f"{name}: unknown; known are {', '.join(sorted(known))}" for name in given if name not in known]
    is_set = {name: value for name, value in given.items() if value is not None and value is not False and value != []}
    wrong += [f"{name}={is_set[name]!r}: {why}" for name, why in REFUSED.items() if name in is_set]
    for name in ("l2_cache_size", "max_l1_cache_size"):
        value = is_set.get(name, 1)
        if not isinstance(value, int) or value < 0:
            wrong.append(f"{name}={value!r}: a whole number from 0 on is needed")
    wrong += _wrong_tables(is_set)
    l1_rows = None
    if not wrong and is_set.get("max_l1_cache_size"):
        l1_rows = (is_set["max_l1_cache_size"] << 20) // row_bytes
        if not l1_rows:
            wrong.append(f"max_l1_cache_size={is_set['max_l1_cache_size']}: no row of {row_bytes} bytes fits into it")
    if wrong:
        raise BadSettings("; ".join(wrong))
    return MappedOptions(
        _store(is_set, l1_rows),
        _stream(is_set) if "enable_raw_embedding_streaming" in is_set else None,
        {name: why for name, why in PASSED_OVER.items() if name in is_set},
    )


def _given(params: Any) -> dict[str, Any]:
    if isinstance(params, Mapping):
        return dict(params)
    if is_dataclass(params) and not isinstance(params, type):
        return {one.name: getattr(params, one.name) for one in fields(params)}
    raise BadSettings(f"KeyValueParams, RESParams or a mapping of their fields is needed, not {type(params).__name__}")


def _wrong_tables(is_set: Mapping[str, Any]) -> list[str]:
    enabled, names = is_set.get("res_enabled_tables", ()), is_set.get("table_names", ())
    if enabled and not names:
        return [f"res_enabled_tables={enabled!r}: table_names has to tell the others, else every table is streamed"]
    return [f"res_enabled_tables: no table {name!r} in table_names {names!r}" for name in enabled if name not in names]


def _stream(is_set: Mapping[str, Any]) -> dict[str, Any]:
    enabled = is_set.get("res_enabled_tables")
    left_out = [name for name in is_set.get("table_names", ()) if enabled and name not in enabled]
    return {"tables": {name: {"enabled": False} for name in left_out}} if left_out else {}


def _store(is_set: Mapping[str, Any], l1_rows: int | None) -> dict[str, Any]:
    store: dict[str, Any] = {} if l1_rows is None else {"l1_rows": l1_rows}
    if is_set.get("l2_cache_size"):
        store["dram_bytes"] = is_set["l2_cache_size"] << 30
    if is_set.get("ssd_storage_directory"):
        text = str(is_set["ssd_storage_directory"]).replace("@local_rank", os.environ.get("LOCAL_RANK", "0"))
        store["ssd"] = {"path": [one.strip() for one in text.split(",")]}
    return store
