"""Which tables a stream carries, and what of their rows. Pure.

A stream carries the same tables and columns for its whole life: a replica has no earlier rows of a table that joins later, and old ones of
a table that leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from pipeline.rows.spec import TableSpec
from pipeline.stream.errors import SelectionChanged
from pipeline.stream.options import CodecName
from pipeline.wire.frames import HeaderFrame, StreamedTable


class TableStream(BaseModel):
    """What is streamed of one table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="whether its rows are streamed at all")
    codec: CodecName | None = Field(None, description="how its weights travel; not set: as those of all tables")
    states: bool = Field(False, description="whether the optimizer's states of a row ride along, exact")
    identities: bool = Field(False, description="whether a row's meta columns (identities, metadata) ride along, exact")


Selection = Mapping[str, TableStream]


def selected(specs: Sequence[TableSpec], codec: str, selection: Selection) -> tuple[StreamedTable, ...]:
    """The tables that are streamed, in the order of ``specs``; ``codec`` where a table names none."""
    everything = TableStream()
    return tuple(
        StreamedTable(spec, one.codec or codec, _carried(spec, one))
        for spec in specs
        if (one := selection.get(spec.name, everything)).enabled
    )


def _carried(spec: TableSpec, one: TableStream) -> tuple[str, ...]:
    roles = {role for role, asked in (("state", one.states), ("meta", one.identities)) if asked}
    return tuple(column.name for column in spec.layout.columns if column.role in roles)


def selection_problems(specs: Sequence[TableSpec], selection: Selection) -> Iterator[tuple[str, str]]:
    """What cannot be: (key below the selection, what is wrong)."""
    by_name = {spec.name: spec for spec in specs}
    for name, one in selection.items():
        if name not in by_name:
            yield name, f"no such table; the tables are {', '.join(by_name)}"
            continue
        columns = by_name[name].layout.columns
        has = ", ".join(column.name for column in columns)
        for key, role, asked in (("states", "state", one.states), ("identities", "meta", one.identities)):
            if asked and one.enabled and not any(column.role == role for column in columns):
                yield (
                    f"{name}.{key}",
                    f"rows of this table have no {role} column that could ride along; they have {has}",
                )
    if not any(selection.get(name, TableStream()).enabled for name in by_name):
        yield "", "no table is left to be streamed; `enabled: false` of the stage switches the whole stream off"


def check_same_selection(place: str, header: HeaderFrame, tables: Sequence[StreamedTable]) -> None:
    """Raises SelectionChanged unless a stream with ``header`` may go on with ``tables``. Codecs may differ."""
    was, now = ({table.spec.name: table.carries for table in of} for of in (header.tables, tables))
    for name in [*was, *now]:
        if was.get(name) != now.get(name):
            raise SelectionChanged(place, name, was.get(name), now.get(name))
