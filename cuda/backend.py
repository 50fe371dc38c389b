"""The operations on L1, under one contract. Two twins implement it: ``cuda.host`` (Numba) and, on a GPU, PyCUDA.

L1 is one pool of slots shared by all tables. A slot holds one packed row (``rows.layout``) and its version. The backend owns the
pool and the map from (table, id) to slot; which slot a row gets is decided above, by the store. No method may be called on the
event loop's thread: each raises RuntimeError there. Bad shapes are our own bugs and fail an assertion.

Threads: ``locate``, ``admit`` and ``forget`` are called under the store's residency lock. ``read_rows`` may run beside everything;
a row that is written at that moment may come out torn, and the snapshot protocol of the store takes care of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from cuda.plan import BatchIds, BatchMeta, Float32s, Int32s, Int64s, Matrix, RowPlaces, SlotPlan, UniqueIds
from pipeline.rows.room import RowRoom
from pipeline.rows.spec import TableSpec

RowBytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """One table's optimizer as a kernel sees it. ``hyper`` is float32, its meaning fixed by the rule's spec in ``optim``.

    A rule works on float32. What a row keeps in 16 bits (``rows.narrow``) is widened before it and rounded after it; ``max_norm``
    comes between.
    """

    rule: str
    hyper: tuple[float, ...]
    """The learning rate first."""
    max_norm: float = 0.0
    """A row that the rule leaves longer is multiplied with max_norm / its length; 0: none is."""
    max_gradient: float = 0.0
    """Each number of dL/d out is brought within -max_gradient .. max_gradient before anything else; 0: none is."""
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    """Of 16 bits: see ``cuda.host.narrow`` for what it is and ``cuda.host.noise`` for the bits that decide."""

    def with_rate(self, factor: float) -> UpdateRule:
        """The same with ``factor`` times its learning rate, a float32."""
        return replace(self, hyper=(float(np.float32(self.hyper[0] * factor)), *self.hyper[1:]))


class Backend(Protocol):
    """See the module docstring. ``U``, ``N`` and the rest are those of ``cuda.plan``."""

    name: str
    num_slots: int
    row_bytes: int
    """Length of a slot's row: the longest row of all tables."""
    threads: int
    """Threads of the host that one call may use, for those beside the backend that share its work."""

    def open(self, specs: Sequence[TableSpec], num_slots: int) -> None:
        """Allocate the pool. Raises MemoryError that says how many rows would fit."""

    def close(self) -> None:
        """Free the pool. May be called twice."""

    def deduplicate(self, batch: BatchIds) -> UniqueIds:
        """Find the distinct (table, id) pairs of a batch. Needs no pool; may run beside everything."""

    def last_values(self, batch: BatchIds, unique: UniqueIds, meta: BatchMeta) -> tuple[Int64s, RowBytes]:
        """Of the table's pairs in ``unique``, those that ``meta`` has a value for, as positions [M] that rise, and the values.

        Of several for one pair the last in (feature, position) order: uint8 [M, bytes of the column]. ``unique`` may have fewer pairs
        than the batch. Needs no pool; may run beside everything.
        """

    def locate(self, tables_u: Int32s, ids_u: Int64s) -> Int32s:
        """The slot of each pair, or -1. Shapes [U]."""

    def admit(self, slots_m: Int32s, tables_m: Int32s, ids_m: Int64s) -> None:
        """Bind each slot to a pair that is not resident; a slot that held another pair forgets it. Shapes [M]; slots distinct."""

    def forget(self, slots_m: Int32s) -> None:
        """Unbind slots."""

    def pairs(self, slots_m: Int32s) -> tuple[Int32s, Int64s]:
        """(tables, ids) of bound slots; table -1 where a slot is unbound."""

    def read_rows(self, slots_m: Int32s) -> tuple[RowBytes, Int64s]:
        """Copy out packed rows uint8 [M, row_bytes of the pool] and their versions [M]."""

    def read_rows_into(self, slots_n: Int32s, head_nb: RowBytes, tail_nb: RowBytes, versions_n: Int64s) -> None:
        """The same into contiguous arrays of the caller's: the first bytes of each row and those that follow, multiples of 4, 0 of the
        latter perhaps. Slots [n] may repeat; where one is -1 nothing is written. By the calling thread alone.
        """

    def read_versions(self, slots_m: Int32s) -> Int64s:
        """Versions [M] alone."""

    def row_places(self, slots_m: Int32s) -> RowPlaces | None:
        """Where the rows of slots lie, for those who move them without a copy between; None where the host cannot reach them.

        Good while the slots are the caller's: bound, and written by nobody else.
        """

    def write_rows(self, slots_m: Int32s, rows_mb: RowBytes, versions_m: Int64s) -> None:
        """Copy packed rows into slots; ``rows_mb`` may be narrower than the pool's rows."""

    def write_part(self, slots_m: Int32s, start: int, values_mb: RowBytes) -> None:
        """Copy bytes to the rows of slots, from byte ``start`` of each on. The rest of a row and its version stay. Slots are distinct."""

    def gather_pool(self, plan: SlotPlan, outs_f: Sequence[Matrix]) -> None:
        """Pool each feature's rows, widened to float32, into ``outs_f[f]``: [B, dim] for sum and mean, [ids of the feature, dim] for none.

        sum: y_b = sum over the bag, in position order, of w_n * row_n, each product and sum rounded to float32, the first product
        copied rather than added to zero; mean: that divided by the number of ids in the bag (weights or not); an empty bag is zeros.
        none: w_n * row_n.
        """

    def sum_gradients(self, plan: SlotPlan, grads_f: Sequence[Matrix | None]) -> Float32s:
        """The gradient of each distinct row [U, largest dim]: sum of its occurrences in (feature, position) order.

        ``grads_f[f]`` is dL/d out of feature f; None where the feature took no part (its occurrences count as zero).
        An occurrence n in bag b gives c * grad[b], c = w_n for sum and none, w_n / (ids in the bag), rounded to float32, for mean.
        """

    def weight_gradients(self, plan: SlotPlan, grads_f: Sequence[Matrix | None]) -> Float32s:
        """dL/dw_n [N] with the rows as they stand: grad[b] . row, divided by the ids in the bag for mean."""

    def update(
        self, plan: SlotPlan, grads_f: Sequence[Matrix | None], rules_t: Sequence[UpdateRule], version: int
    ) -> Int64s:
        """Sum gradients and apply each table's rule to each distinct row, once, in place; set its version.

        Fused: equals ``sum_gradients`` followed by the rule, bit for bit. A row whose gradient has a NaN or an infinity keeps weights
        and states, and gets the version all the same. Returns how many these were [T].
        """

    def keep_weights(self, plan: SlotPlan) -> Float32s:
        """The weights of each distinct row as they stand, widened to float32: [U, at least the largest dim], for ``relative_change``. What
        stands behind a row's dim means nothing.
        """

    def relative_change(self, plan: SlotPlan, kept_ud: Float32s) -> Float32s:
        """How far each distinct row's weights have moved since ``keep_weights`` gave ``kept_ud``, which is used up: [U].

        With a the weights kept, b those that are there, both in float32, d = a - b: sqrt(dot(d, d)) / sqrt(max(dot(a, a), dot(b, b))),
        which is 0 where nothing moved, and 2 at most; a row that left zeros gives 1. 0 where dot(d, d) is 0, infinity where it or the
        maximum is not finite.
        """

    def encode_rows(self, slots_m: Int32s, codec: str, table: int) -> RowBytes:
        """The weights of slots, all of one table, encoded by a codec of ``rows.codec``: uint8 [M, codec.row_bytes(dim)]."""

    def find_distinct(self, ids_m: Int64s, starts_gt: Int64s) -> tuple[Int32s, Int64s] | None:
        """The slots of the distinct pairs of several groups of ids, and how many of them each table has [T].

        Group g holds the ids ``starts_gt[g, t] .. starts_gt[g, t + 1]`` of table t. Slots come table by table, in order of first
        occurrence. None where a pair is not resident. One call at a time.
        """

    def encode_distinct(
        self, slots_n: Int32s, counts_t: Int64s, codecs_t: Sequence[str], versions: tuple[int, int], room: RowRoom
    ) -> tuple[int, int]:
        """Ids, weights and versions of slots, the first ``counts_t[0]`` of table 0 and so on, written into a frame's content.

        Each table's weights go through its codec. Returns (their share of the cut's digest, ``rows.digest``; how many versions
        are not within ``versions[0] + 1 .. versions[1]``). What another thread writes meanwhile may come out torn.
        """


def forbid_event_loop(what: str) -> None:
    """Raise RuntimeError when called on a thread that runs an event loop: work on rows belongs on a lane."""
    running: Any = asyncio._get_running_loop()
    if running is not None:
        raise RuntimeError(f"{what} was called on the event loop's thread; run it on a lane")
