"""Negatives: how many, from where, never the positive itself, and the same whatever the batch sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.errors import WrongItems
from stages.items import FeatureIds, RawBatch
from stages.logs.errors import EmptyLog, MissingColumns
from stages.mixing import key_of, permutation
from stages.negatives import Negatives
from stages.negatives.candidates import SeenItems
from tests.stages.driving import bags_of, plain, run_stage


def single(ids: list[int | None]) -> FeatureIds:
    lengths = [0 if i is None else 1 for i in ids]
    offsets_b = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return FeatureIds(np.array([i for i in ids if i is not None], np.int64), offsets_b)


def with_meta(bags: FeatureIds, samples: list[int]) -> FeatureIds:
    """Each id of a bag of one brings itself and the number of its sample, and that in three numbers of 16 bits."""
    own = np.array(samples, np.int64)[np.diff(bags.offsets_b) == 1]
    return replace(
        bags,
        identities_nk=np.stack([bags.ids_n, own], axis=1),
        metadata_nm=np.stack([own, -own, own % 7], axis=1).astype(np.int16),
    )


def stream(
    items: list[int | None], sizes: list[int], labels: list[float] | None = None, meta: bool = False
) -> list[RawBatch]:
    """Sample i: user i, item items[i], author 1000 + item, dense i; cut into batches of ``sizes``, round and round."""
    batches: list[RawBatch] = []
    at = 0
    while at < len(items):
        size = sizes[len(batches) % len(sizes)]
        part = items[at : at + size]
        users: list[int | None] = list(range(at, at + len(part)))
        chosen = [1.0] * len(part) if labels is None else labels[at : at + size]
        features = {
            "user": single(users),
            "item": single(part),
            "author": single([None if i is None or i % 5 == 0 else 1000 + i for i in part]),
        }
        if meta:
            features = {name: with_meta(bags, list(range(at, at + len(part)))) for name, bags in features.items()}
        batches.append(
            RawBatch(
                num_samples=len(part),
                features=features,
                dense_bd=np.array(users, np.float32).reshape(-1, 1),
                labels_b=np.array(chosen, np.float32),
                cursor={"sample": at + len(part)},
                first_row=at,
            )
        )
        at += size
    return batches


def negatives(**options: Any) -> Callable[[], Negatives]:
    return lambda: Negatives(Negatives.Options.model_validate({"item": "item", "along": ["author"], **options}))


def groups(batches: list[RawBatch]) -> dict[int, list[tuple[list[int], list[int], float]]]:
    """By user: its rows (item, author, label) in order."""
    found: dict[int, list[tuple[list[int], list[int], float]]] = {}
    labels = np.concatenate([batch.labels_b for batch in batches]).tolist()
    rows = zip(*(bags_of(batches, name) for name in ("user", "item", "author")), labels, strict=True)
    for user, item, author, label in rows:
        found.setdefault(user[0], []).append((item, author, label))
    return found


ITEMS: list[int | None] = [int(i) for i in np.random.default_rng(5).zipf(1.5, 300) % 40]


@pytest.mark.parametrize("draw", ["popularity", "uniform"])
def test_each_positive_is_followed_by_its_negatives(draw: str) -> None:
    out, _, drive = run_stage(negatives(draw=draw, window=50), stream(ITEMS, [64]))
    found = groups(out)
    assert list(found) == list(range(300))
    missing = 0
    for user, rows in found.items():
        item = ITEMS[user]
        assert item is not None
        assert rows[0] == ([item], [] if item % 5 == 0 else [1000 + item], 1.0)
        missing += 4 - len(rows[1:])
        before = ITEMS[max(0, user - 50) : user] if draw == "popularity" else ITEMS[:user]
        for ids, author, label in rows[1:]:
            assert label == 0
            assert ids[0] != item
            assert ids[0] in before
            assert author == ([] if ids[0] % 5 == 0 else [1000 + ids[0]])
    assert missing == drive.counts.get("negatives_missing", 0) >= 4
    assert len(found[299]) == 5
    assert np.concatenate([batch.dense_bd[:, 0] for batch in out]).tolist() == [
        user for user, rows in found.items() for _ in rows
    ]


@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    out_size=st.integers(1, 70),
    draw=st.sampled_from(["popularity", "uniform"]),
    remember=st.sampled_from([3, 1000]),
    meta=st.booleans(),
    data=st.data(),
)
@settings(max_examples=15)
def test_batch_sizes_and_resuming_change_no_sample(
    sizes: list[int], out_size: int, draw: str, remember: int, meta: bool, data: st.DataObject
) -> None:
    options = {"draw": draw, "window": 70, "remember": remember}
    expected, _, _ = run_stage(negatives(**options), stream(ITEMS, [300], meta=meta))
    make = negatives(batch_size=out_size, **options)
    batches = stream(ITEMS, sizes, meta=meta)
    out, _, _ = run_stage(make, batches)
    assert groups(out) == groups(expected)
    assert {batch.num_samples for batch in out[:-1]} <= {out_size}
    assert [batch.first_row for batch in out] == [i * out_size for i in range(len(out))]
    stop = data.draw(st.integers(0, len(batches)))
    begin, state, _ = run_stage_undrained(make, batches[:stop])
    rest, _, _ = run_stage(make, batches[stop:], msgpack.unpackb(msgpack.packb(state)))
    assert [plain(batch) for batch in begin + rest] == [plain(batch) for batch in out]


def run_stage_undrained(make: Callable[[], Negatives], batches: list[RawBatch]) -> tuple[list[RawBatch], Any, Any]:
    out, state, drive = run_stage(make, batches)
    rest = 0 if state["rest"]["rest"] is None else 1
    return out[: len(out) - rest], state, drive


@pytest.mark.parametrize("draw", ["popularity", "uniform"])
def test_identities_and_metadata_go_along_with_ids(draw: str) -> None:
    """Those of the positive that a drawn item is from; with what stays of a sample, its own."""
    out, _, _ = run_stage(negatives(draw=draw, window=50), stream(ITEMS, [37], meta=True))
    ids = {name: np.concatenate([batch.features[name].ids_n for batch in out]) for name in ("user", "item", "author")}
    beside = {name: [batch.features[name].beside for batch in out] for name in ids}
    kept = {name: np.concatenate([part[1] for part in parts if part[1] is not None]) for name, parts in beside.items()}
    numbers = {
        name: np.concatenate([part[2] for part in parts if part[2] is not None]) for name, parts in beside.items()
    }
    for name, of_ids in ids.items():
        origins = kept[name][:, 1]
        assert np.array_equal(kept[name][:, 0], of_ids)
        assert numbers[name].dtype == np.int16
        assert np.array_equal(numbers[name], np.stack([origins, -origins, origins % 7], axis=1))
    assert np.array_equal(kept["user"][:, 1], ids["user"])
    assert [ITEMS[origin] for origin in kept["item"][:, 1].tolist()] == ids["item"].tolist()
    assert (kept["item"][:, 1] != ids["user"]).sum() > 1000, "those of other samples"
    has_author = ids["item"] % 5 != 0
    assert np.array_equal(kept["author"][:, 1], kept["item"][has_author, 1])


def test_items_that_suddenly_bring_identities_are_refused(tmp_path: Path) -> None:
    batches = [*stream(ITEMS, [9])[:3], *stream(ITEMS, [9], meta=True)[3:]]
    assert "other identities or metadata than batches before" in str(raised(negatives(), batches))
    (tmp_path / "c.csv").write_text("item,author\n5,6\n")
    make = negatives(draw="uniform", candidates=str(tmp_path / "c.csv"))
    assert "`candidates` from a file" in str(raised(make, stream(ITEMS, [9], meta=True)))


def test_popularity_draws_as_often_as_chosen_and_uniform_does_not() -> None:
    items: list[int | None] = [*([1] * 80 + [2] * 15 + [3] * 5) * 20, *[9] * 2000]
    shares = {}
    for draw in ("popularity", "uniform"):
        out, _, _ = run_stage(negatives(draw=draw, window=2000, along=[]), stream(items, [500]))
        drawn = Counter(i[0][0] for u, rows in groups(out).items() if 2000 <= u < 2100 for i in rows[1:])
        shares[draw] = [drawn[i] / sum(drawn.values()) for i in (1, 2, 3)]
    assert shares["popularity"] == pytest.approx([0.8, 0.15, 0.05], abs=0.08)
    assert shares["uniform"] == pytest.approx([1 / 3] * 3, abs=0.1)


def test_samples_that_are_no_positives_go_through_and_are_not_drawn() -> None:
    labels = [float(i % 3 == 0) for i in range(300)]
    out, _, _ = run_stage(negatives(), stream(ITEMS, [50], labels))
    found = groups(out)
    positives = {ITEMS[i] for i in range(300) if labels[i]}
    assert all(len(found[u]) == 1 for u in range(300) if not labels[u])
    assert {row[0][0] for u in range(300) for row in found[u][1:]} <= positives


def test_a_positive_without_item_has_negatives_and_is_not_remembered() -> None:
    items: list[int | None] = [1, 2, None, 3]
    found = groups(run_stage(negatives(), stream(items, [4]))[0])
    assert found[2][0] == ([], [], 1.0)
    assert {row[0][0] for row in found[2][1:]} <= {1, 2}
    assert {row[0][0] for row in found[3][1:]} <= {1, 2}


def test_all_items_of_a_positive_with_several_are_kept_out() -> None:
    bags = FeatureIds(np.arange(12, dtype=np.int64) % 6, np.arange(0, 13, 3, dtype=np.int64))
    batch = RawBatch(4, {"item": bags}, np.zeros((4, 0), np.float32), np.ones(4, np.float32))
    out, _, drive = run_stage(negatives(along=[]), [batch])
    found = bags_of(out, "item")
    assert found[0] == [0, 1, 2]
    assert found[1] == [3, 4, 5]
    assert {bag[0] for bag in found[2:6]} <= {0, 1, 2}
    assert drive.counts == {"negatives_missing": 4}


def test_candidates_come_from_a_file(tmp_path: Path) -> None:
    table = pa.table({"item": [7, 8, None, 7, 9], "author": [70, None, 1, 71, 90]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    make = negatives(draw="uniform", candidates=str(tmp_path / "c.parquet"))
    found = groups(run_stage(make, stream([7] * 50, [20]))[0])
    rows = [row for u in range(50) for row in found[u][1:]]
    assert {(item[0], tuple(author)) for item, author, _ in rows} == {(8, ()), (9, (90,))}
    assert len(rows) == 200
    (tmp_path / "c.csv").write_text("item\n5\n6\n")
    csv = negatives(draw="uniform", candidates=str(tmp_path / "c.csv"), along=[])
    assert {row[0][0] for row in groups(run_stage(csv, stream([7], [1]))[0])[0][1:]} <= {5, 6}


def raised(make: Callable[[], Negatives], batches: list[RawBatch]) -> Exception:
    with pytest.raises(ExceptionGroup) as caught:
        run_stage(make, batches)
    return caught.value.exceptions[0]


def test_wrong_features_and_files_are_refused(tmp_path: Path) -> None:
    heavy = FeatureIds(np.array([1], np.int64), np.array([0, 1], np.int64), np.ones(1, np.float32))
    batch = RawBatch(1, {"item": heavy}, np.zeros((1, 0), np.float32), np.ones(1, np.float32))
    assert isinstance(raised(negatives(along=[]), [batch]), WrongItems)
    assert "no feature 'shop'" in str(raised(negatives(item="shop"), stream([1], [1])))
    (tmp_path / "c.csv").write_text("itm\n5\n")
    assert isinstance(raised(negatives(draw="uniform", candidates=f"{tmp_path}/c.csv"), []), MissingColumns)
    (tmp_path / "e.csv").write_text("item,author\n")
    assert isinstance(raised(negatives(draw="uniform", candidates=f"{tmp_path}/e.csv"), []), EmptyLog)
    with pytest.raises(ValidationError, match="belongs to `draw: uniform`"):
        negatives(candidates="file")()


def test_a_batch_of_no_samples_goes_through() -> None:
    empty = stream([1], [1])[0]
    none = RawBatch(
        0,
        {name: FeatureIds(np.zeros(0, np.int64), np.zeros(1, np.int64)) for name in empty.features},
        np.zeros((0, 1), np.float32),
        np.zeros(0, np.float32),
    )
    out, _, _ = run_stage(negatives(), [none])
    assert [batch.num_samples for batch in out] == [0]
    assert run_stage(negatives(batch_size=4), [none])[0] == []


@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 30), max_size=200), most=st.integers(1, 20))
def test_the_memory_of_seen_items_is_bounded_and_finds_what_it_holds(ids: list[int], most: int) -> None:
    from stages.negatives.drawn import Items
    from stages.negatives.kernels import find_known

    seen = SeenItems(most, 0)
    ids_n = np.array(ids, np.int64)
    items = Items(ids_n, np.arange(len(ids) + 1, dtype=np.int64), np.zeros((0, len(ids)), np.int64))
    seen.draw(np.uint64(3), 0, 2, np.ones(len(ids), np.bool_), items)
    known = np.frombuffer(seen.state()["ids"], np.int64)
    assert len(known) == len(set(known.tolist())) == min(len(set(ids)), most)
    assert set(known.tolist()) <= set(ids)
    table = seen._table
    for place, held in enumerate(known):
        assert table[find_known(table, seen._known_m, held)] == place
    assert (table >= 0).sum() == len(known)


@given(st.integers(0, 2**64 - 1), st.integers(0, 300))
def test_a_permutation_is_one(seed: int, count: int) -> None:
    assert sorted(permutation(key_of(seed), count).tolist()) == list(range(count))
