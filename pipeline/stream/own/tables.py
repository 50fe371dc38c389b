"""A table whose rows live elsewhere: what a user says of it, as a stream describes it, and its rows packed and checked.

Legend: n rows; d weights of a row; k identities of a row; b bytes of a packed row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.rows.initial import initial_rows
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.stream.errors import BadRows, BadTables
from pipeline.stream.options import CodecName
from pipeline.wire.frames import StreamedTable

Int64s = npt.NDArray[np.int64]
RowBytes = npt.NDArray[np.uint8]
IDENTITIES = "identity"
"""The column of the raw ids behind a row's id."""


class OwnInitializer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["uniform", "normal", "zeros"] = "uniform"
    low: float = -0.01
    high: float = 0.01
    mean: float = 0.0
    std: float = 0.01


class OwnTable(BaseModel):
    """One table of a ``RowStreamer`` whose rows live elsewhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(ge=1, description="weights of a row, float32")
    codec: CodecName = Field("fp32", description="how weights travel")
    init: OwnInitializer | None = Field(
        None, description="the rows that nobody updated, as `rows.initial` makes them; not set: every row is told of"
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="of `init`")
    default: float = Field(
        0.0, description="without `init`: replicas answer an id whose row was never told with these weights"
    )
    states: dict[str, int] = Field(
        default_factory=dict, description="float32 columns that ride along beside the weights, and their widths"
    )
    identities: int = Field(0, ge=0, le=1024, description="raw ids behind each id, int64, that ride along")

    def streamed(self, name: str) -> StreamedTable:
        """Raises ValueError for a name that no table may have."""
        columns = [Column("weight", "float32", self.dim, "weight")]
        columns += [Column(state, "float32", width, "state") for state, width in self.states.items()]
        if self.identities:
            columns.append(Column(IDENTITIES, "int64", self.identities, "meta"))
        spec = TableSpec(
            name,
            RowLayout(tuple(columns)),
            Initializer("zeros") if self.init is None else Initializer(**self.init.model_dump()),
            self.seed,
            self.default if self.init is None else None,
        )
        return StreamedTable(spec, self.codec, tuple(column.name for column in columns[1:]))


def streamed_tables(given: Mapping[str, OwnTable | Mapping[str, Any]]) -> tuple[StreamedTable, ...]:
    """Raises BadTables."""
    if not given:
        raise BadTables("no table is given; a stream carries at least one, such as {'item': {'dim': 16}}")
    return tuple(_streamed(name, one) for name, one in given.items())


def _streamed(name: str, given: OwnTable | Mapping[str, Any]) -> StreamedTable:
    try:
        return OwnTable.model_validate(given).streamed(name)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise BadTables(f"table {name!r}: {faults}; options are {', '.join(OwnTable.model_fields)}") from error
    except ValueError as error:
        raise BadTables(f"table {name!r}: {error}") from error


def initial_weights(table: StreamedTable, ids_n: Int64s) -> npt.NDArray[np.float32]:
    """Of rows that nobody updated: a new array [n, d]."""
    spec = table.spec
    rows_nb = initial_rows(spec.absent, ids_n)
    return np.array(spec.layout.singles(rows_nb, spec.layout.columns[0].name), order="C")


def as_ids(table: str, ids: Any) -> Int64s:
    """``ids`` of any shape as a new array int64 [n]; torch tensors too. Raises BadRows."""
    given = _as_array(table, "ids", ids)
    if given.dtype.kind not in "iu" and given.size:
        raise BadRows(table, f"ids are integers of 64 bits; got {given.dtype} {list(given.shape)}")
    if given.dtype == np.uint64 and given.size and int(given.max()) > np.iinfo(np.int64).max:
        raise BadRows(table, f"id {int(given.max())} is more than an int64 holds; view the ids as int64")
    return np.array(given.reshape(-1), dtype=np.int64)


def pack_rows(
    table: StreamedTable, count: int, weights: Any, states: Mapping[str, Any] | None = None, identities: Any = None
) -> RowBytes:
    """New packed rows [n, b] of ``count`` ids. Raises BadRows."""
    spec = table.spec
    given = {**(states or {}), spec.layout.columns[0].name: weights}
    if identities is not None:
        given[IDENTITIES] = identities
    needed = [column.name for column in spec.layout.columns]
    if given.keys() != set(needed):
        raise BadRows(spec.name, f"{_listed(given)} were given; a row of it has {_listed(needed)}")
    rows_nb = spec.layout.empty(count)
    for column in spec.layout.columns:
        values = _as_array(spec.name, column.name, given[column.name])
        if values.ndim == 1 and column.width == 1:
            values = values[:, None]
        if values.shape != (count, column.width) or values.dtype != column.dtype:
            what = "rows" if column.role == "weight" else column.name
            raise BadRows(
                spec.name,
                f"{what} of {count} ids are {column.dtype} {[count, column.width]}; got {values.dtype} {list(values.shape)}",
            )
        spec.layout.view(rows_nb, column.name)[...] = values
    return rows_nb


def _as_array(table: str, what: str, values: Any) -> npt.NDArray[Any]:
    """numpy's view of an array, a list or a tensor, with or without a gradient."""
    if hasattr(values, "detach"):
        values = values.detach()
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadRows(table, f"{what} are no array in this machine's memory: {error}") from error


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
