"""The meta columns that a config asks for: in the layouts of its tables, and against what its sources bring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from cuda.plan import MetaPlace
from pipeline.flow import Graph
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import TableSpec
from pipeline.session.settings import Settings, TableSettings

IDENTITY: Final = "identity"
METADATA: Final = "metadata"


def with_meta(layout: RowLayout, table: TableSettings) -> RowLayout:
    """The row of a table with the meta columns that it asks for, behind its states."""
    asked = []
    if table.identities is not None:
        asked.append(Column(IDENTITY, "int64", table.identities, "meta"))
    if table.metadata is not None:
        asked.append(Column(METADATA, table.metadata.dtype, table.metadata.width, "meta"))
    return RowLayout((*layout.columns, *asked)) if asked else layout


def meta_places(specs: Sequence[TableSpec]) -> tuple[tuple[MetaPlace, ...], ...]:
    """For ``FeatureSet.meta_t``."""
    places = [tuple(MetaPlace(one, spec.layout.offsets[one.name]) for one in spec.layout.meta) for spec in specs]
    return tuple(places) if any(places) else ()


def meta_problems(settings: Settings, graph: Graph) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) where a source says that it brings what a feature's table does not keep."""
    source = graph.stages[0]
    features = getattr(source.options, "features", None)
    for name, brought in (features if isinstance(features, dict) else {}).items():
        if name not in settings.features:
            continue
        table, keys = settings.table_of(name), f"stages.{source.name}.features.{name}"
        yield from _wrong(f"{keys}.identities", table, settings.tables[table].identities, _identities(brought))
        kept = settings.tables[table].metadata
        yield from _wrong(
            f"{keys}.metadata",
            table,
            None if kept is None else {"dtype": kept.dtype, "width": kept.width},
            getattr(brought, "metadata_shape", None),
        )


def _identities(brought: Any) -> int | None:
    return getattr(brought, "num_identities", 0) or None


def _wrong(key: str, table: str, kept: Any, given: Any) -> Iterator[tuple[str, str]]:
    if given is not None and given != kept:
        what = key.rpartition(".")[2]
        has = f"table {table!r} keeps " + ("none" if kept is None else str(kept))
        yield key, f"it brings {given} for each id, and {has}; set tables.{table}.{what} to {given}"
