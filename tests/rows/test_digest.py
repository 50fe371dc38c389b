"""A digest can be computed again by anyone, does not depend on order, and depends on everything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rows.digest import TableRuns, rows_digest, tables_digest
from pipeline.rows.errors import BadShape
from pipeline.rows.version import MAX_STEP, pack_version
from tests.rows import reference

int64s = st.integers(-(2**63), 2**63 - 1)


def test_the_documented_example() -> None:
    payload = np.array([[1, 2, 3, 4]], dtype=np.uint8)
    assert rows_digest("users", [-1], payload, [pack_version(3, 7)]) == 0x2B5649420E45E552
    assert reference.digest("users", [-1], [b"\1\2\3\4"], [7]) == 0x2B5649420E45E552


@given(st.data())
def test_any_xxh64_gives_the_same(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from([0, 1, 7, 8, 31, 32, 33, 100]))
    ids = data.draw(st.lists(int64s, max_size=5))
    payload = [data.draw(st.binary(min_size=width, max_size=width)) for _ in ids]
    steps = [data.draw(st.integers(0, MAX_STEP)) for _ in ids]
    generations = [data.draw(st.integers(0, 2**23 - 1)) for _ in ids]
    versions = [pack_version(*pair) for pair in zip(generations, steps, strict=True)]
    rows = np.frombuffer(b"".join(payload), dtype=np.uint8).reshape(len(ids), width)
    assert rows_digest("t", ids, rows, versions) == reference.digest("t", ids, payload, steps)


def test_order_and_chunks_do_not_matter_and_all_else_does() -> None:
    rng = np.random.default_rng()
    ids, rows = rng.integers(-(2**63), 2**63 - 1, 1000), rng.integers(0, 256, (1000, 128), dtype=np.uint8)
    versions = rng.integers(1, 1 << 30, 1000)
    whole = rows_digest("t", ids, rows, versions)
    order = rng.permutation(1000)
    assert rows_digest("t", ids[order], rows[order], versions[order]) == whole
    parts = [rows_digest("t", ids[k::3], rows[k::3], versions[k::3]) for k in range(3)]
    assert sum(parts) % 2**64 == whole
    assert rows_digest("t", ids, rows, versions + (9 << 40)) == whole, "the generation does not count"
    flipped = rows.copy()
    flipped[777, 100] ^= 1
    swapped = np.concatenate([rows[1:2], rows[:1], rows[2:]])
    others = [
        rows_digest("u", ids, rows, versions),
        rows_digest("t", ids ^ 1, rows, versions),
        rows_digest("t", ids, rows, versions + 1),
        rows_digest("t", ids, flipped, versions),
        rows_digest("t", ids, swapped, versions),
        rows_digest("t", ids[1:], rows[1:], versions[1:]),
        rows_digest("t", np.append(ids, ids[:1]), np.append(rows, rows[:1], 0), np.append(versions, versions[:1])),
    ]
    assert len({whole, *others}) == 8


def test_no_rows_digest_to_zero() -> None:
    assert rows_digest("t", [], np.empty((0, 8), np.uint8), []) == 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadShape, match=r"1 tables that start at \[0, 2\], 2 ids, 1 versions"):
        rows_digest("t", [1, 2], np.zeros((2, 4), np.uint8), [1])
    with pytest.raises(BadShape, match=r"payload \(3, 4\): need \[2, width\]"):
        rows_digest("t", [1, 2], np.zeros((3, 4), np.uint8), [1, 1])
    with pytest.raises(BadShape, match=r"2 tables that start at \[0, 1\], 1 ids"):
        TableRuns(("t", "u"), [0, 1], [5], [1])


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_several_tables_digest_to_the_sum_of_each(seed: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    total = sum(counts)
    ids, versions = rng.integers(-(2**62), 2**62, total), rng.integers(1, 2**40, total)
    rows = rng.integers(0, 256, (total, 12), dtype=np.uint8)
    starts = np.cumsum([0, *counts])
    names = [f"t{n}" for n in range(len(counts))]
    each = [
        rows_digest(name, ids[a:b], rows[a:b], versions[a:b])
        for name, a, b in zip(names, starts[:-1], starts[1:], strict=True)
    ]
    assert tables_digest(TableRuns(names, starts, ids, versions), rows) == sum(each) % 2**64
