"""A backend written for reading: plain numpy and dicts, one row at a time. The oracle of every backend.

Arithmetic follows the docstrings of ``cuda.backend``; numpy rounds each float32 operation on its own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cuda.plan import MEAN, NONE, BatchIds, BatchMeta, UniqueIds

Floats = npt.NDArray[np.float32]
Pair = tuple[int, int]
LANES = 16


def positions(batch: BatchIds) -> list[tuple[int, int, int]]:
    """(feature, bag, n) of each position, in (feature, position) order."""
    return [
        (f, b, n)
        for f in range(len(batch.features.names))
        for b in range(batch.num_samples)
        for n in range(int(batch.offsets_fb[f, b]), int(batch.offsets_fb[f, b + 1]))
    ]


def pair_of(batch: BatchIds, f: int, n: int) -> Pair:
    return int(batch.features.tables_f[f]), int(batch.ids_n[n])


def deduplicate(batch: BatchIds) -> dict[Pair, list[int]]:
    """The positions of each distinct pair; pairs by table, then by first occurrence."""
    found: dict[Pair, list[int]] = {}
    for f, _, n in positions(batch):
        found.setdefault(pair_of(batch, f, n), []).append(n)
    return dict(sorted(found.items(), key=lambda item: item[0][0]))


def check_unique(batch: BatchIds, unique: UniqueIds) -> None:
    """Assert that every field of ``unique`` is what the reference finds."""
    expected = deduplicate(batch)
    pairs = list(expected)
    assert list(zip(unique.tables_u.tolist(), unique.ids_u.tolist(), strict=True)) == pairs
    starts = [sum(table < t for table, _ in pairs) for t in range(batch.features.num_tables + 1)]
    assert unique.table_start_t.tolist() == starts
    for u, places in enumerate(expected.values()):
        start, end = int(unique.occurrence_start_u[u]), int(unique.occurrence_start_u[u + 1])
        assert unique.occurrences_n[start:end].tolist() == places
        assert (unique.inverse_n[places] == u).all()
    assert unique.occurrence_start_u.shape == (len(pairs) + 1,)
    assert unique.inverse_n.shape == unique.occurrences_n.shape == batch.ids_n.shape


def weight(batch: BatchIds, n: int) -> np.float32:
    return np.float32(1) if batch.weights_n is None else batch.weights_n[n]


def gather(batch: BatchIds, rows: dict[Pair, Floats]) -> list[Floats]:
    """One matrix per feature."""
    outs = []
    for f, dim in enumerate(batch.features.dims_f.tolist()):
        lines: list[Floats] = []
        for b in range(batch.num_samples):
            terms = [
                weight(batch, n) * rows[pair_of(batch, f, n)][:dim]
                for n in range(int(batch.offsets_fb[f, b]), int(batch.offsets_fb[f, b + 1]))
            ]
            lines += (
                terms if batch.features.poolings_f[f] == NONE else [pool(terms, dim, int(batch.features.poolings_f[f]))]
            )
        outs.append(np.array(lines, np.float32).reshape(-1, dim))
    return outs


def pool(terms: list[Floats], dim: int, pooling: int) -> Floats:
    if not terms:
        return np.zeros(dim, np.float32)
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total / np.float32(len(terms)) if pooling == MEAN else total


def term(batch: BatchIds, grads: list[Floats | None], f: int, b: int, n: int) -> tuple[np.float32, Floats] | None:
    """(factor, gradient) that position n's row receives; None where the feature took no part."""
    grad = grads[f]
    if grad is None:
        return None
    if batch.features.poolings_f[f] == NONE:
        return weight(batch, n), grad[n - int(batch.feature_start_f[f])]
    ids = np.float32(batch.offsets_fb[f, b + 1] - batch.offsets_fb[f, b])
    mean = batch.features.poolings_f[f] == MEAN
    return (weight(batch, n) / ids if mean else weight(batch, n)), grad[b]


def sum_gradients(batch: BatchIds, grads: list[Floats | None]) -> dict[Pair, Floats]:
    dims = {int(t): int(d) for t, d in zip(batch.features.tables_f, batch.features.dims_f, strict=True)}
    sums: dict[Pair, Floats | None] = dict.fromkeys(deduplicate(batch))
    for f, b, n in positions(batch):
        found, pair = term(batch, grads, f, b, n), pair_of(batch, f, n)
        if found is not None:
            product, so_far = found[0] * found[1], sums[pair]
            sums[pair] = product if so_far is None else so_far + product
    return {pair: np.zeros(dims[pair[0]], np.float32) if total is None else total for pair, total in sums.items()}


def dot(left: Floats, right: Floats) -> np.float32:
    """16 lanes, each in order, then halves added."""
    products = np.zeros(-(-left.shape[0] // LANES) * LANES, np.float32)
    products[: left.shape[0]] = left * right
    lanes = np.zeros(LANES, np.float32)
    for line in products.reshape(-1, LANES):
        lanes = lanes + line
    while lanes.shape[0] > 1:
        half = lanes.shape[0] // 2
        lanes = lanes[:half] + lanes[half:]
    return np.float32(lanes[0])


def weight_gradients(batch: BatchIds, rows: dict[Pair, Floats], grads: list[Floats | None]) -> Floats:
    result = np.zeros(batch.ids_n.shape[0], np.float32)
    for f, b, n in positions(batch):
        found = term(batch, grads, f, b, n)
        if found is not None:
            mean = batch.features.poolings_f[f] == MEAN
            ids = np.float32(batch.offsets_fb[f, b + 1] - batch.offsets_fb[f, b]) if mean else np.float32(1)
            result[n] = dot(found[1], rows[pair_of(batch, f, n)][: found[1].shape[0]]) / ids
    return result


def last_values(batch: BatchIds, meta: BatchMeta) -> dict[Pair, bytes]:
    """What each pair of the table keeps of the values that ``meta`` brings."""
    found: dict[Pair, bytes] = {}
    for f, _, n in positions(batch):
        pair, first = pair_of(batch, f, n), int(meta.first_f[f])
        if pair[0] == meta.table and first >= 0:
            found[pair] = meta.values_vb[first + n - int(batch.feature_start_f[f])].tobytes()
    return found
