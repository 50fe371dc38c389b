"""A training loop whose batches bring identities and metadata, against a plain dict; snapshots stay open over steps.

A sabotage shares it, so it asserts inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cuda.backend import UpdateRule
from cuda.host import HostBackend
from cuda.plan import BatchIds, MetaPlace
from pipeline.rows.layout import Column, RowLayout
from pipeline.rows.spec import Initializer, TableSpec
from pipeline.store import AdmissionRule, DramTier, DynamicTables, ExpiryRule, Snapshot, Store, StoreOptions
from pipeline.store.meta import batch_meta
from tests.store.expiry_oracle import PlainUses
from tests.store.jobs import DIMS, TABLE_NAMES, features, ids_of, matrices, random_batch, whole_grads

IDENTITY, METADATA = Column("identity", "int64", 2, "meta"), Column("metadata", "uint8", 3, "meta")
KEPT = ((IDENTITY, METADATA), (replace(IDENTITY, width=1),), ())
"""Meta columns by table."""
SPECS = tuple(
    TableSpec(name, RowLayout((Column("weight", "float32", dim, "weight"), *kept)), Initializer(), 11)
    for name, dim, kept in zip(TABLE_NAMES, DIMS, KEPT, strict=True)
)
FEATURES = replace(
    features(),
    meta_t=tuple(tuple(MetaPlace(one, spec.layout.offsets[one.name]) for one in spec.layout.meta) for spec in SPECS),
)
EXPIRY = ExpiryRule(steps=4, rows=None, score="last_use", every=3)
Key = tuple[int, int, str]
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class MetaPlan:
    seed: int
    steps: int = 25
    l1_rows: int = 60
    num_ids: int = 60
    after: int | None = None
    """An admission of the first table."""
    expires: bool = False
    """Whether rows of the first two tables end that were not used for some steps."""
    brings: float = 0.7
    """How many of the features bring values."""


class Oracle:
    """What each row keeps, by key, as of each step."""

    def __init__(self, after: int | None) -> None:
        self._history: dict[Key, list[tuple[int, bytes]]] = {}
        self._counts: Counter[int] = Counter()
        self._after = after or 0

    def enter(self, step: int, batch: BatchIds, given: Mapping[str, list[Values | None]]) -> None:
        """One position after the other, in (feature, position) order: the last one stays."""
        counts = self._counts.copy()
        for f, table in enumerate(batch.features.tables_f.tolist()):
            first = int(batch.feature_start_f[f])
            for n in range(first, int(batch.feature_start_f[f + 1])):
                number = int(batch.ids_n[n])
                if table == 0:
                    self._counts[number] += 1
                    if counts[number] < self._after:
                        continue
                for column in KEPT[table]:
                    values = given[column.name][f]
                    if values is not None:
                        entry = step, values[n - first].tobytes()
                        self._history.setdefault((table, number, column.name), []).append(entry)

    def end(self, step: int, table: int, numbers: list[int]) -> None:
        """These rows end with the step: they begin anew."""
        for number in numbers:
            for column in KEPT[table]:
                self._history.setdefault((table, number, column.name), []).append((step, bytes(column.nbytes)))

    def at(self, step: int, table: int, number: int, column: Column) -> bytes:
        entries = [kept for when, kept in self._history.get((table, number, column.name), []) if when <= step]
        return entries[-1] if entries else bytes(column.nbytes)


def walk(plan: MetaPlan) -> dict[str, Values]:
    """Runs a plan. Returns the weights of all rows, by table."""
    admission = None if plan.after is None else AdmissionRule(plan.after, 1 << 20)
    expiries = (EXPIRY, EXPIRY, None) if plan.expires else (None, None, None)
    dynamic = DynamicTables(TABLE_NAMES, (admission, None, None), expiries) if admission or plan.expires else None
    specs = tuple(replace(spec, default=0.0) if t == 0 and admission else spec for t, spec in enumerate(SPECS))
    rules = (UpdateRule("sgd", (1.0,)),) * len(specs)
    options = StoreOptions(l1_rows=plan.l1_rows, shadow_bytes=1 << 22)
    store = Store(specs, rules, FEATURES, HostBackend(1), DramTier(), options, dynamic=dynamic)
    store.open()
    try:
        return _Walk(plan, store).run()
    finally:
        store.close()


class _Walk:
    def __init__(self, plan: MetaPlan, store: Store) -> None:
        self.plan, self.store, self.oracle = plan, store, Oracle(plan.after)
        self.draw = np.random.default_rng(plan.seed)
        self.bring = np.random.default_rng([plan.seed, 1])
        """Of its own, so that what batches bring changes nothing else."""
        self.open: list[Snapshot] = []
        self.uses = {table: PlainUses(EXPIRY) for table in ((0, 1) if plan.expires else ())}

    def run(self) -> dict[str, Values]:
        for step in range(1, self.plan.steps + 1):
            self._train(step)
            if self.bring.random() < 0.3:
                wanted = "all" if self.bring.random() < 0.5 else {name: self._ids() for name in TABLE_NAMES}
                self.open.append(self.store.freeze(wanted, blocking=False))  # type: ignore[arg-type]
            if len(self.open) > 2:
                self._check(self.open.pop(0))
        for snapshot in self.open:
            self._check(snapshot)
        self._check_fetched()
        assert self.store.counters.evictions > 0, "no row has left L1"
        with self.store.freeze("all", blocking=False) as last:
            return {name: np.array(last.weights(name, last.ids(name))) for name in TABLE_NAMES}

    def _train(self, step: int) -> None:
        batch = random_batch(self.draw, self.plan.num_ids, int(self.draw.integers(1, 5)))
        batch = replace(batch, features=FEATURES, weights_n=np.ones(batch.ids_n.shape[0], np.float32))
        given = self._given(batch)
        batch = replace(batch, meta=batch_meta(FEATURES, given))
        reservation = self.store.try_reserve(step, batch, self.store.backend.deduplicate(batch))
        assert reservation is not None
        self.store.read_misses(reservation)
        self.oracle.enter(step, batch, given)
        for table, uses in self.uses.items():
            own = np.flatnonzero(FEATURES.tables_f == table).tolist()
            self.oracle.end(step, table, uses.step(step, [number for f in own for number in ids_of(batch, f)]))
        self.store.update(reservation, matrices(whole_grads(self.draw, batch)))
        self.store.release(reservation)
        self.store.clean_ahead()

    def _given(self, batch: BatchIds) -> dict[str, list[Values | None]]:
        """Of each feature, for each of its positions, another value."""
        given: dict[str, list[Values | None]] = {
            name: [None] * len(FEATURES.names) for name in ("identity", "metadata")
        }
        for f, table in enumerate(FEATURES.tables_f.tolist()):
            count = int(batch.feature_start_f[f + 1] - batch.feature_start_f[f])
            for column in KEPT[table]:
                if self.bring.random() < self.plan.brings:
                    info, shape = np.iinfo(column.dtype), (count, column.width)
                    given[column.name][f] = self.bring.integers(info.min, info.max, shape, column.dtype, endpoint=True)
        return given

    def _ids(self) -> Any:
        return np.unique(self.bring.integers(0, self.plan.num_ids, 40))

    def _check(self, snapshot: Snapshot) -> None:
        """Read behind the steps that came since: what was there then."""
        with snapshot:
            for t, spec in enumerate(SPECS):
                ids_n = snapshot.ids(spec.name)
                rows = snapshot.read(spec.name, ids_n)
                for column in spec.layout.meta:
                    found = spec.layout.view(rows.rows_nb, column.name)
                    for number, line in zip(ids_n.tolist(), found, strict=True):
                        expected = self.oracle.at(snapshot.step, t, number, column)
                        assert line.tobytes() == expected, f"{column.name} of row {number} at step {snapshot.step}"

    def _check_fetched(self) -> None:
        for t, spec in enumerate(SPECS):
            rows = self.store.fetch_rows(spec.name, np.arange(self.plan.num_ids))
            assert list(rows.meta) == [column.name for column in spec.layout.meta]
            for column in spec.layout.meta:
                for number, line in enumerate(rows.meta[column.name]):
                    expected = self.oracle.at(rows.step, t, number, column)
                    assert line.tobytes() == expected, f"fetched {column.name} of row {number}"
            assert not self.store.fetch_rows(spec.name, [1], states=False).meta
