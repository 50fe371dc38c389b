"""Tiers as a config names them: a list, a bound, one of a user's own; and what does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.config import ConfigError, load
from pipeline.flow import StageError
from pipeline.rowlog.log import LogFull
from pipeline.session.errors import DisksTooSmall
from pipeline.session.plan import make_plan
from pipeline.session.settings import Settings
from tests.e2e.command import here
from tests.e2e.jobs import RAGGED, Job, assert_same_bits, run_job

TINY = {"segment_bytes": 8192, "extent_bytes": 4096}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return run_job(tmp_path_factory.mktemp("tiers") / "whole", RAGGED)


@pytest.mark.parametrize("memory", [[], [{"dram": {"bytes": 40000}}]], ids=["alone", "under memory"])
def test_a_tier_of_ones_own_gives_the_same_bits(tmp_path: Path, whole: Job, memory: list[object]) -> None:
    tiers = [{"l1": {"rows": 150}}, *memory, {"use": "tests.e2e.own_tier:OwnTier"}]
    job = run_job(tmp_path / "run", {**RAGGED, "store": {"tiers": tiers}}, "checkpoint.every='9 steps'")
    assert job.summary["store"]["tier"] == ("dram over sqlite" if memory else "sqlite")
    assert job.summary["l1"]["evictions"] > 0
    assert_same_bits(whole, job)


def test_a_list_of_tiers_trains_as_the_keys_do(tmp_path: Path, whole: Job) -> None:
    tiers = [{"l1": {"rows": 150}}, {"dram": {"bytes": "40kB"}}, {"ssd": {"bytes": "10MB", **TINY}}]
    job = run_job(tmp_path / "run", {**RAGGED, "store": {"tiers": tiers}})
    store = job.summary["store"]
    assert (store["tier"], store["l1_rows"], store["dram"]["max_bytes"]) == ("dram over ssd", 150, 40_000)
    assert_same_bits(whole, job)


def test_rows_lie_on_all_disks_in_turn_and_give_the_same_bits(tmp_path: Path, whole: Job) -> None:
    disks = [tmp_path / name for name in ("a", "b", "c")]
    ssd = {"path": [str(disk) for disk in disks], **TINY}
    job = run_job(tmp_path / "run", {**RAGGED, "store": {"l1_rows": 150, "ssd": ssd}}, "checkpoint.every='9 steps'")
    assert_same_bits(whole, job)
    for table in ("shared", "wide"):
        held = [{int(file.stem.split("-")[-1]) for file in disk.glob(f"{table}-*.seg")} for disk in disks]
        assert all(held), f"{table}: segments {held}"
        assert [{number % 3 for number in numbers} for numbers in held] == [{0}, {1}, {2}]


def test_more_bytes_than_the_disks_have_are_refused_before_training(tmp_path: Path) -> None:
    two = [str(tmp_path / "a" / "b"), str(tmp_path / "c")]
    config = {**RAGGED, "store": {"l1_rows": 150, "ssd": {"bytes": "900PB", "path": two, **TINY}}}
    with pytest.raises(
        DisksTooSmall, match=rf"900000000000000000.*{two[0]}, {two[1]} have room for \d+ bytes"
    ) as refused:
        run_job(tmp_path / "run", config)
    free = shutil.disk_usage(tmp_path).free
    assert int(str(refused.value).split("room for ")[1].split()[0]) < 2 * free, "two directories on one disk share it"


def test_a_table_that_outgrows_its_bytes_stops_the_run_and_the_checkpoint_before_is_whole(tmp_path: Path) -> None:
    bound = {"l1_rows": 150, "ssd": {"bytes": 200_000, **TINY}}
    config = {**RAGGED, "store": bound, "checkpoint": {"every": "3 steps", "keep": 1}}
    with pytest.raises((StageError, LogFull)) as stopped:  # where rows leave L1, or where a checkpoint saves them
        run_job(tmp_path / "run", config, "stages.source.batches=4000")
    causes = [stopped.value, stopped.value.__cause__, getattr(stopped.value.__cause__, "__cause__", None)]
    full = next(cause for cause in causes if isinstance(cause, LogFull))
    assert f"{tmp_path}/run/ssd holds" in str(full)
    assert "of at most 200000 bytes" in str(full)
    assert here("verify", tmp_path / "run").code == 0
    assert here("export", tmp_path / "run", "--table", "wide", "--out", tmp_path / "wide.npz").code == 0
    job = run_job(
        tmp_path / "run", config, "store.ssd.bytes=20MB", "stages.source.batches=4000", "run.steps=60", resume=True
    )
    assert job.summary["resumed_from"] > 0


@pytest.mark.parametrize(
    ("store", "rows", "told"),
    [
        ({"ssd": {"bytes": 50_000, **TINY}}, None, "2 tables with 4 segments each take"),
        ({"ssd": {"bytes": 400_000, **TINY}}, 100_000, "100000 rows of table 'wide' take up to"),
        (
            {"dram_bytes": 400_000},
            100_000,
            "400000 bytes of DRAM are the last tier, and 100000 rows of table 'wide' take",
        ),
    ],
)
def test_sizes_that_cannot_work_are_refused_at_check(
    tmp_path: Path, store: dict[str, object], rows: int | None, told: str
) -> None:
    tables = {name: dict(table) for name, table in RAGGED["tables"].items()}
    if rows is not None:
        tables["wide"]["max_rows"] = rows
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**RAGGED, "tables": tables, "store": {"l1_rows": 150, **store}}, sort_keys=False))
    with pytest.raises(ConfigError) as refused:
        make_plan(load([str(path)], [], Settings))
    assert told in str(refused.value)
    assert "job.yaml" in str(refused.value)
