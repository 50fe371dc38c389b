"""Meta columns of rows (``identity``, ``metadata``): what a batch brings, which of it each row keeps, the write into the rows.

Rules.

1. Of several values for one row in a batch the last in (feature, position) order is kept. A feature may bring none; a row for which the
   batch brings none keeps what it has. A row begins with zeros.
2. Which value that is is found once, when a batch's rows are reserved, on the lane that reserves.
3. Values are written with the update of their step: inside the fence, behind the save of the rows that snapshots need. So a row's meta
   columns and its weights are of one step, whoever reads it. A row that the step leaves as it is, as its gradient is no number, gets
   them all the same: it was used.
4. An id that has no row (``admission``) leaves nothing.

Legend as in ``cuda.plan``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cuda.backend import Backend
from cuda.plan import BatchMeta, FeatureSet, MetaPlace, RowMeta
from pipeline.store.reservation import Reservation

Values = npt.NDArray[Any]


def fault(features: FeatureSet, feature: int, name: str, values: Values, count: int) -> str | None:
    """What is wrong with values of the meta column ``name`` for a feature with ``count`` ids; None where nothing is."""
    came = f"{values.dtype} {list(values.shape)}"
    place = _places(features, int(features.tables_f[feature])).get(name)
    if place is None:
        return f"values for {name} came ({came}), and its table has no such column: give the table one"
    dtype, width = place.column.dtype, place.column.width
    if values.dtype == dtype and values.shape == (count, width):
        return None
    return f"values for {name} are {came}; {dtype} {[count, width]} is needed, a line for each id"


def batch_meta(features: FeatureSet, given: Mapping[str, Sequence[Values | None]]) -> tuple[BatchMeta, ...]:
    """What a batch brings. ``given``: by column the values of each feature, without ``fault``; None where it brings none."""
    found = []
    for table in range(features.num_tables):
        own = np.flatnonzero(features.tables_f == table).tolist()
        for name, place in _places(features, table).items():
            parts = [(f, values) for f in own if (values := given[name][f]) is not None] if name in given else []
            if parts:
                found.append(_joined(table, place, parts, len(features.names)))
    return tuple(found)


def _joined(table: int, place: MetaPlace, parts: Sequence[tuple[int, Values]], num_features: int) -> BatchMeta:
    first_f, count = np.full(num_features, -1, dtype=np.int64), 0
    for f, values in parts:
        first_f[f], count = count, count + values.shape[0]
    joined = np.concatenate([values for _, values in parts])
    values_vb = np.ascontiguousarray(joined).view(np.uint8).reshape(count, place.column.nbytes)
    return BatchMeta(table, place, values_vb, first_f)


def _places(features: FeatureSet, table: int) -> dict[str, MetaPlace]:
    return {place.column.name: place for place in features.meta_t[table]} if features.meta_t else {}


def take_meta(backend: Backend, reservation: Reservation | None) -> Reservation | None:
    """Find what the rows of a reservation keep of what its batch brings."""
    if reservation is not None and reservation.plan.batch.meta:
        batch, unique = reservation.plan.batch, reservation.plan.unique
        reservation.meta = tuple(RowMeta(one.place, *backend.last_values(batch, unique, one)) for one in batch.meta)
    return reservation


def write_meta(backend: Backend, reservation: Reservation) -> None:
    """Write it. Inside the fence, when the rows are saved for who needs them."""
    for one in reservation.meta:
        backend.write_part(reservation.plan.slots_u[one.rows_m], one.place.start, one.values_mb)
