"""Identities and metadata in whole runs: each row has those of its last use, wherever it lay and however often the run crashed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.flow import StageError
from pipeline.rows.buckets import bucket_ids
from pipeline.wire import FileTransport, RowsFrame, TableRows
from pipeline.wire.reading import FrameReader
from stages.errors import WrongMeta
from tests.conftest import real_data
from tests.e2e.command import here
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, Arrays, Job, assert_same_bits, run_job
from tests.e2e.ragged import RaggedOptions, make_batch
from tests.e2e.small import CONFIG, text

BROUGHT: dict[str, Any] = {
    "identities": {"a": 2, "b": 2},
    "metadata": {"a": ["int16", 1], "wide": ["float32", 3]},
}
META: dict[str, Any] = {
    "shared": {"identities": 2, "metadata": {"dtype": "int16"}},
    "wide": {"metadata": {"dtype": "float32", "width": 3}},
}
"""By table. Feature b shares the table of a and brings no metadata."""
EVERYTHING = ("store.l1_rows=4096", "stages.prefetch.lookahead=1", "stages.stream.enabled=false")
DISK = ("store.ssd.segment_bytes=4096", "store.ssd.extent_bytes=4096")


def config() -> dict[str, Any]:
    made = copy.deepcopy(RAGGED)
    for table, columns in META.items():
        made["tables"][table] |= columns
    made["stages"]["source"] |= BROUGHT
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return run_job(tmp_path_factory.mktemp("identities") / "whole", config(), *EVERYTHING)


def last_brought(features: list[tuple[str, str]], width: int, steps: int = 50) -> Callable[[int], list[float]]:
    """From the source alone, one position after the other: what each id of these (feature, field) was last brought with."""
    options = RaggedOptions(features=["a", "b", "wide"], **BROUGHT)
    found: dict[int, list[float]] = {}
    for number in range(steps):
        made = make_batch(options, number).features
        for feature, field in features:
            values = getattr(made[feature], field)
            if values is not None:
                found |= dict(zip(made[feature].ids_n.tolist(), values.tolist(), strict=True))
    return lambda row_id: found.get(row_id, [0] * width)


def assert_kept(arrays: Arrays, name: str, expected: Callable[[int], list[float]]) -> None:
    kept, ids = arrays[name].tolist(), arrays["ids"].tolist()
    assert kept == [expected(row_id) for row_id in ids]
    assert sum(map(any, kept)) > len(ids) // 2, "most rows were brought some"


def test_each_row_has_what_its_last_use_brought(whole: Job) -> None:
    tables = whole.tables()
    assert_kept(tables["shared"], "meta_identity", last_brought([("a", "identities_nk"), ("b", "identities_nk")], 2))
    assert_kept(tables["shared"], "meta_metadata", last_brought([("a", "metadata_nm")], 1))
    assert_kept(tables["wide"], "meta_metadata", last_brought([("wide", "metadata_nm")], 3))
    assert [tables["wide"]["meta_metadata"].dtype, tables["shared"]["meta_metadata"].dtype] == [np.float32, np.int16]


def test_they_change_no_weight(tmp_path: Path, whole: Job) -> None:
    plain = run_job(tmp_path / "run", RAGGED, *EVERYTHING)
    for name, arrays in plain.tables().items():
        for key in ("ids", "weights", "state_momentum"):
            assert arrays[key].tobytes() == whole.tables()[name][key].tobytes(), (name, key)


@pytest.mark.parametrize(("lookahead", "below"), [(1, ()), (8, DISK)], ids=["memory", "disk"])
def test_l1_lookahead_and_tiers_change_no_bit(
    tmp_path: Path, whole: Job, lookahead: int, below: tuple[str, ...]
) -> None:
    l1_rows = f"store.l1_rows={whole.least_l1() + (lookahead - 1) * 4}"
    job = run_job(tmp_path / "run", config(), l1_rows, f"stages.prefetch.lookahead={lookahead}", *below)
    assert job.summary["l1"]["evictions"] > 0
    assert_same_bits(whole, job)
    assert_replica_equals(job)


class Killed(Exception):
    """Stands for a process that ended between two steps."""


def die_at(step: int) -> Callable[[int], None]:
    def die(ended: int) -> None:
        if ended == step:
            raise Killed

    return die


def test_a_crashed_run_goes_on_to_the_same_bits(tmp_path: Path, whole: Job) -> None:
    ahead = ["stages.prefetch.lookahead=8", "checkpoint.every='5 steps'", *DISK]
    for attempt, step in enumerate((23, 41)):
        with pytest.raises((StageError, ExceptionGroup)):
            run_job(tmp_path / "run", config(), *ahead, on_step=die_at(step), resume=attempt > 0)
    job = run_job(tmp_path / "run", config(), *ahead, resume=True)
    assert job.summary["resumed_from"] > 0
    assert_same_bits(whole, job)
    assert_replica_equals(job)


def test_a_batch_left_for_a_longer_run_keeps_them(tmp_path: Path, whole: Job) -> None:
    run_job(tmp_path / "run", config(), "run.steps=20", "stages.prefetch.lookahead=8")
    assert_same_bits(whole, run_job(tmp_path / "run", config(), resume=True))


def test_a_row_that_is_streamed_brings_that_of_its_last_use(tmp_path: Path, whole: Job) -> None:
    """As of the step of its cut."""
    streamed = ("stages.stream.tables={shared: {identities: true}}", "stages.stream.every='7 steps'")
    job = run_job(tmp_path / "run", config(), f"store.l1_rows={whole.least_l1() + 12}", *streamed)
    transport = FileTransport(str(job.dir / "stream"))
    frames = [frame for piece in list(transport.newest_first())[::-1] for frame in piece]
    transport.close()
    reader, seen = FrameReader(), 0
    for frame in map(reader.read, frames):
        if not isinstance(frame, RowsFrame):
            continue
        for run in frame.rows:
            assert set(run.columns) == ({"identity", "metadata"} if run.table == "shared" else set())
            if run.table == "shared":
                check_run(run, frame.step)
                seen += len(run.ids_n)
    assert seen >= len(job.tables()["shared"]["ids"])


def check_run(run: TableRows, step: int) -> None:
    ids = run.ids_n.tolist()
    identity = last_brought([("a", "identities_nk"), ("b", "identities_nk")], 2, step)
    assert run.columns["identity"].view(np.int64).tolist() == list(map(identity, ids))
    assert run.columns["metadata"].view(np.int16).tolist() == list(
        map(last_brought([("a", "metadata_nm")], 1, step), ids)
    )


def test_rows_shows_them(whole: Job) -> None:
    arrays = whole.tables()["shared"]
    at = int(np.flatnonzero(arrays["meta_identity"].all(axis=1))[0])
    row_id, identity = int(arrays["ids"][at]), arrays["meta_identity"][at].tolist()
    asked = ("rows", whole.dir, "--table", "shared", f"--ids={row_id}")
    assert f"identity: {identity[0]} {identity[1]}" in here(*asked).text
    shown = json.loads(here(*asked, "--json").text)["rows"][0]
    assert shown["identity"] == identity
    assert shown["metadata"] == arrays["meta_metadata"][at].tolist()


@pytest.mark.parametrize("end", [".npz", ".parquet", ".safetensors"])
def test_an_export_is_imported_with_them(tmp_path: Path, whole: Job, end: str) -> None:
    """And what the file does not have begins with zeros, said aloud."""
    out, path = tmp_path / f"shared{end}", tmp_path / "job.yaml"
    assert here("export", whole.dir, "--table", "shared", "--out", out).code == 0
    path.write_text(yaml.safe_dump({**config(), "run": {"seed": 3, "dir": str(tmp_path / "run")}}, sort_keys=False))
    assert here("import", path, "--table", "shared", "--from", out).code == 0
    again = tmp_path / "again.npz"
    assert here("export", tmp_path / "run", "--table", "shared", "--out", again).code == 0
    with np.load(again) as found:
        for name, values in whole.tables()["shared"].items():
            if name != "version":
                assert found[name].tobytes() == values.tobytes(), name
        kept = {name: found[name] for name in found.files if name != "meta_identity"}
    np.savez(tmp_path / "less.npz", **kept)
    told = here("import", path, "--table", "shared", "--from", tmp_path / "less.npz", "--overwrite")
    assert told.code == 0
    assert "the file has no meta_identity: zeros" in told.text


@pytest.mark.parametrize(
    ("source", "table", "what"),
    [
        (
            {"identities": "raw"},
            {},
            "user.identities: it brings 1 for each id, and table 'user' keeps none; set tables.user.id",
        ),
        ({"identities": ["raw", "item"]}, {"identities": 1}, "it brings 2 for each id, and table 'user' keeps 1"),
        (
            {"metadata": "price"},
            {"metadata": {"dtype": "int8"}},
            "user.metadata: it brings {'dtype': 'int64', 'width': 1}",
        ),
    ],
)
def test_check_refuses_a_source_that_brings_what_no_table_keeps(
    tmp_path: Path, source: dict[str, Any], table: dict[str, Any], what: str
) -> None:
    made = copy.deepcopy(CONFIG)
    made["tables"]["user"] |= table
    made["stages"]["source"] |= {"paths": "log.csv", "features": {"user": {"column": "user", **source}, "item": "item"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(made, sort_keys=False))
    refused = here("check", tmp_path / "job.yaml")
    assert refused.code == 2
    assert what in refused.text


def test_what_a_source_of_ones_own_brings_wrongly_is_named(tmp_path: Path) -> None:
    made = config()
    made["stages"]["source"]["identities"]["b"] = 3
    with pytest.raises(StageError) as caught:
        run_job(tmp_path / "run", made)
    assert isinstance(caught.value.__cause__, WrongMeta)
    assert "feature 'b': values for identity are int64" in str(caught.value.__cause__)
    assert ", 2] is needed" in str(caught.value.__cause__)


def test_hashed_ids_of_a_log_keep_their_raw_ids_through_negatives(tmp_path: Path) -> None:
    """Also those of drawn items, which no line of the log has beside this user."""
    made = copy.deepcopy(CONFIG)
    made["run"] = {"seed": 1, "threads": 1}
    made["tables"] |= {"user": {"dim": 8, "identities": 1}, "item": {"dim": 8, "identities": 2}}
    rng = np.random.default_rng(5)
    lines = [f"{rng.integers(0, 10**12)},{i % 40 + 10**15},{i}.5,1" for i in range(200)]
    (tmp_path / "log.csv").write_text(text(lines))
    user = {"column": "user", "buckets": 10**6, "identities": "raw"}
    item = {"column": "item", "buckets": 50, "identities": ["raw", "item"]}
    made["stages"]["source"] |= {"paths": str(tmp_path / "log.csv"), "features": {"user": user, "item": item}}
    stages = made["stages"]
    made["stages"] = {"source": stages.pop("source"), "negatives": {"item": "item", "per_positive": 3}, **stages}
    tables = run_job(tmp_path / "run", made).tables()
    assert np.array_equal(bucket_ids(tables["user"]["meta_identity"][:, 0], 10**6), tables["user"]["ids"])
    raw = tables["item"]["meta_identity"]
    assert np.array_equal(bucket_ids(raw[:, 0], 50), tables["item"]["ids"])
    assert np.array_equal(raw[:, 0], raw[:, 1])
    assert raw.min() >= 10**15


def test_articles_of_globo_in_buckets_keep_their_ids(tmp_path: Path) -> None:
    real_data("globo")
    source = "stages.source.features.article={column: click_article_id, buckets: 5000, identities: raw}"
    job = run_job(tmp_path / "run", "globo", "run.steps=15", "run.threads=2", "tables.article.identities=1", source)
    arrays = job.tables()["article"]
    raw = arrays["meta_identity"][:, 0]
    assert np.array_equal(bucket_ids(raw, 5000), arrays["ids"])
    assert np.unique(raw).shape[0] == raw.shape[0] > 100
