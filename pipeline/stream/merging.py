"""Many arrays of ids become one: distinct, rising. And what arrays of ids cost in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from pipeline.rows.distinct import drop_repeats
from pipeline.stream.grouped import GroupedIds

Int64s = npt.NDArray[np.int64]
NO_IDS: Int64s = np.empty(0, dtype=np.int64)

StepIds = Mapping[str, Int64s]
"""What one step updated: each table's ids, each named once. It may make its arrays when it is asked for them."""

PIECE_COST = 16
"""An array costs as much as this many ids, however short it is."""


def distinct_ids(pieces: Mapping[str, Sequence[Int64s]]) -> dict[str, Int64s]:
    """The ids of all arrays of a table, each once, rising; tables without ids are left out. Sorting releases the GIL.

    Beside the arrays given it takes as much memory again as they do.
    """
    starts = [0, *accumulate(sum(map(len, arrays)) for arrays in pieces.values())]
    if len(pieces) > 1 and starts[-1] > MANY:
        return {table: ids_n for one in pieces.items() for table, ids_n in distinct_ids(dict([one])).items()}
    merged_n = np.concatenate([NO_IDS, *(ids_n for arrays in pieces.values() for ids_n in arrays)])
    for start, stop in pairwise(starts):
        merged_n[start:stop].sort()  # numpy's sort uses the processor's vectors
    counts = drop_repeats(merged_n, np.array(starts)).tolist()
    if len(pieces) == 1:
        merged_n.resize(counts[0], refcheck=False)  # gives back what was merged away
        return {table: merged_n for table in pieces if counts[0]}
    found = zip(pieces, starts, counts, strict=False)
    # Copies: a view would keep what was merged away.
    return {table: merged_n[start : start + count].copy() for table, start, count in found if count}


MANY = 1 << 16
"""So many ids are merged table by table, which takes less memory; fewer in one go, which takes less time."""

FEW = 1 << 12
"""So few ids are copied in a microsecond or two."""


def step_cost(ids: StepIds) -> int:
    """What a step's ids cost, in ids."""
    return sum(map(len, ids.values())) + PIECE_COST * len(ids)


def pieces_cost(pieces: Iterable[Int64s]) -> int:
    """What arrays cost, in ids."""
    return sum(len(ids_n) + PIECE_COST for ids_n in pieces)


def kept(ids: StepIds, count: int) -> tuple[StepIds, int]:
    """``ids``, ``count`` in all, as they may be kept, and what memory that takes: a copy where they are few and would keep a block many
    times as large.
    """
    nbytes = block_bytes(ids, count)
    if count <= FEW and nbytes > 4 * 8 * (count + PIECE_COST * len(ids)) and isinstance(ids, GroupedIds):
        return ids.copied(), 8 * (count + PIECE_COST * len(ids))
    return ids, nbytes


def block_bytes(ids: StepIds, count: int | None = None) -> int:
    """Memory that stays while ``ids``, ``count`` in all, are kept: that of a step often lies in one block with more of that step."""
    if not isinstance(ids, GroupedIds):
        return 8 * (step_cost(ids) if count is None else count + PIECE_COST * len(ids))
    beside, base = ids.beside_bytes + 8 * PIECE_COST * len(ids), ids.ids_u
    while isinstance(base.base, np.ndarray):
        base = base.base
    return (base.nbytes if base.base is None else memoryview(base.base).nbytes) + beside
