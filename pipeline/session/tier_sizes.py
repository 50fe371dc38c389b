"""Whether the tiers are large enough for the tables, as far as a config says how large these are. Before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.config import Loaded
from pipeline.rowlog.log import RowLogOptions
from pipeline.rowlog.log.bound import SEGMENTS_PER_TABLE
from pipeline.rowlog.log.records import Records
from pipeline.rowlog.log.segment_format import segment_size
from pipeline.rows.spec import TableSpec
from pipeline.store import CacheTooSmall, StoreOptions, rows_within
from pipeline.store.dram import dram_bytes_for


def check_tiers(
    specs: Sequence[TableSpec], max_rows: Sequence[int | None], store: StoreOptions, loaded: Loaded[Any]
) -> None:
    """Raises ConfigError that names the key, what was found, and what would be enough."""
    rows = {spec.name: count for spec, count in zip(specs, max_rows, strict=True) if count is not None}
    if store.tier is not None:
        return
    if store.ssd is None:
        _check_memory(specs, rows, store, loaded)
        return
    if store.dram_bytes is not None:
        try:
            rows_within(specs, store.dram_bytes)
        except CacheTooSmall as error:
            raise loaded.error([("store.dram_bytes", str(error))]) from error
    _check_disk(specs, rows, store.ssd, loaded)


def _check_memory(specs: Sequence[TableSpec], rows: dict[str, int], store: StoreOptions, loaded: Loaded[Any]) -> None:
    needed = sum(dram_bytes_for(spec, rows.get(spec.name, 0)) for spec in specs)
    if store.dram_bytes is not None and needed > store.dram_bytes:
        what = f"{store.dram_bytes} bytes of DRAM are the last tier, and {_told(rows)} take {needed} bytes there"
        raise loaded.error([("store.dram_bytes", f"{what}: give it that many, or a disk below it (store.ssd)")])


def _check_disk(specs: Sequence[TableSpec], rows: dict[str, int], ssd: RowLogOptions, loaded: Loaded[Any]) -> None:
    if ssd.bytes is None:
        return
    records = {spec.name: Records.of(spec) for spec in specs}
    full = {name: segment_size(one, one.capacity(ssd.segment_bytes)) for name, one in records.items()}
    least = SEGMENTS_PER_TABLE * sum(full.values())
    if ssd.bytes < least:
        what = f"{ssd.bytes} bytes; {len(specs)} tables with {SEGMENTS_PER_TABLE} segments each take {least}"
        raise loaded.error([("store.ssd.bytes", f"{what}: give it that many, or set store.ssd.segment_bytes lower")])
    needed = sum(int(ssd.max_space * segment_size(records[name], count)) for name, count in rows.items())
    if needed + least > ssd.bytes:
        what = f"{ssd.bytes} bytes of disk are the last tier, and {_told(rows)} take up to {needed + least} bytes there"
        raise loaded.error([("store.ssd.bytes", f"{what}, what is to be compacted included: give it that many")])


def _told(rows: dict[str, int]) -> str:
    return ", ".join(f"{count} rows of table {name!r}" for name, count in rows.items())
