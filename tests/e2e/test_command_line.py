"""The command line as a user meets it: exit codes, output, files; the run that all look at in a process of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file

from tests.e2e.command import here, pipeline

SMALL = ("run.steps=40", "store.l1_rows=12000")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cli") / "quick"
    outcome = pipeline("run", "configs/quickstart.yaml", f"run.dir={directory}", *SMALL)
    assert outcome.code == 0, outcome.text
    return directory


def test_summary_has_its_figures(quick: Path) -> None:
    summary = json.loads((quick / "summary.json").read_text())
    wanted = (
        "steps samples seconds samples_per_s train_log_loss train_auc eval_log_loss eval_auc rows_updated rows_streamed "
        "bytes_streamed bytes_if_raw cuts freshness_ms l1 channels loop_lag_ms skipped lost tables dense_digest"
    )
    assert not set(wanted.split()) - summary.keys()
    assert summary["steps"] == 40
    assert summary["skipped"] == summary["lost"] == 0
    assert {"p50", "p99", "max"} <= summary["freshness_ms"].keys()
    assert {"hits", "misses", "evictions"} <= summary["l1"].keys()
    assert {"p99", "max"} <= summary["loop_lag_ms"].keys()
    assert summary["tables"] == ["user", "item", "tags"]
    assert summary["samples"] == 40 * 2048
    assert summary["bytes_if_raw"] == 4 * 32 * summary["rows_updated"]
    assert summary["l1"]["evictions"] > 0
    assert summary["rows_streamed"] > 0
    assert {"prefetch->lookup", "update->evict", "score->stream"} <= summary["channels"].keys()
    for channel in summary["channels"].values():
        assert {"send_wait_s", "receive_wait_s", "depth_max"} <= channel.keys()
    figures = [
        summary[key] for key in ("train_log_loss", "train_auc", "eval_log_loss", "eval_auc", "samples_per_s", "seconds")
    ]
    assert all(isinstance(figure, float) and figure > 0 for figure in figures)
    assert len(summary["dense_digest"]) == 64


def test_export_and_replica_agree(quick: Path, tmp_path: Path) -> None:
    for table in json.loads((quick / "summary.json").read_text())["tables"]:
        ours, theirs = tmp_path / "ours.npz", tmp_path / "theirs.npz"
        assert here("export", quick, "--table", table, "--out", ours).code == 0
        assert here("replica", quick, "--table", table, "--export", theirs).code == 0
        with np.load(ours) as one, np.load(theirs) as other:
            assert one["ids"].dtype == np.int64
            assert (np.diff(one["ids"]) > 0).all()
            assert one["weights"].dtype == other["weights"].dtype == np.float32
            assert one["weights"].shape == (one["ids"].size, 32)
            assert one["version"].shape == (one["ids"].size, 2)
            assert (one["version"][:, 0] == 1).all()
            assert one["version"][:, 1].max() == 40
            assert sorted(one.files) == ["ids", "state_momentum", "version", "weights"]
            assert sorted(other.files) == ["ids", "version", "weights"]
            assert len(one["state_momentum"]) == one["ids"].size
            assert np.array_equal(one["ids"], other["ids"])
            assert one["weights"].tobytes() == other["weights"].tobytes()
            assert np.array_equal(one["version"][:, 1], other["version"][:, 1])


def test_dense_export_has_the_digest_of_the_summary(quick: Path, tmp_path: Path) -> None:
    from pipeline.models.digest import digest_of_arrays

    assert here("export", quick, "--dense", "--out", tmp_path / "dense.npz").code == 0
    with np.load(tmp_path / "dense.npz") as arrays:
        digest = digest_of_arrays({name: arrays[name] for name in arrays.files})
    assert digest == json.loads((quick / "summary.json").read_text())["dense_digest"]


def test_rows_says_what_was_never_updated(quick: Path) -> None:
    table = json.loads((quick / "summary.json").read_text())["tables"][0]
    outcome = here("rows", quick, "--table", table, "--ids", "-9223372036854775808", "-1")
    assert outcome.code == 0, outcome.text
    assert outcome.text.count("never updated: initial row") == 2


@pytest.mark.parametrize("form", ["parquet", "safetensors"])
def test_a_replica_exports_what_the_trainer_does_in_other_forms_too(quick: Path, tmp_path: Path, form: str) -> None:
    ours, theirs = tmp_path / f"ours.{form}", tmp_path / f"theirs.{form}"
    assert here("export", quick, "--table", "item", "--out", ours).code == 0
    assert here("replica", quick, "--table", "item", "--export", theirs).code == 0
    if form == "parquet":
        names = ["ids", "weights", "version"]
        assert pq.read_table(ours, columns=names).equals(pq.read_table(theirs, columns=names))
        assert pq.read_metadata(theirs).num_rows > 0
        return
    mine, other = load_file(ours), load_file(theirs)
    assert mine.keys() - other.keys() == {"state_momentum"}
    assert all(mine[name].tobytes() == other[name].tobytes() for name in other)
    assert len(other["ids"]) > 0


def test_rows_prints_what_export_writes(quick: Path, tmp_path: Path) -> None:
    assert here("export", quick, "--table", "item", "--out", tmp_path / "item.npz").code == 0
    with np.load(tmp_path / "item.npz") as exported:
        ids, weights = exported["ids"][:3], exported["weights"][:3]
        steps, momentum = exported["version"][:3, 1], exported["state_momentum"][:3]
    asked = here("rows", quick, "--table", "item", "--ids", *map(str, ids), "--json")
    found = json.loads(asked.out)
    assert (found["table"], found["step"]) == ("item", 40)
    for n, row in enumerate(found["rows"]):
        assert (row["id"], row["updated"], row["version"]) == (ids[n], True, [1, steps[n]])
        assert np.array(row["weight"], np.float32).tobytes() == weights[n].tobytes()
        assert np.array(row["momentum"], np.float32).tobytes() == momentum[n].tobytes()
    for_people = here("rows", quick, "--table", "item", "--ids", str(ids[0])).out.splitlines()
    assert for_people[:2] == ["table item at step 40", f"id {ids[0]}  updated at step {steps[0]}"]
    assert for_people[2].startswith("  weight: ")
    assert for_people[2].endswith("(32 in all)")
    assert for_people[3].startswith("  momentum: ")


@pytest.mark.parametrize("command", ["rows", "export", "replica"])
def test_a_table_that_is_not_there_is_wrong_usage(quick: Path, tmp_path: Path, command: str) -> None:
    more: dict[str, list[str | Path]] = {
        "rows": ["--ids", "1"],
        "export": ["--out", tmp_path / "x.npz"],
        "replica": ["--lookup", "1"],
    }
    outcome = here(command, quick, "--table", "itm", *more[command])
    assert outcome.code == 2, outcome.text
    assert "'itm'" in outcome.err
    assert "item" in outcome.err


@pytest.mark.parametrize("command", ["rows", "export", "replica"])
def test_a_directory_without_a_run_is_named(tmp_path: Path, command: str) -> None:
    more: dict[str, list[str | Path]] = {
        "rows": ["--table", "t", "--ids", "1"],
        "export": ["--dense", "--out", tmp_path / "x.npz"],
        "replica": [],
    }
    outcome = here(command, tmp_path / "nothing", *more[command])
    assert outcome.code in (1, 2)
    assert str(tmp_path / "nothing") in outcome.err
    assert "Traceback" not in outcome.err


def test_check_show_and_stages_run_nothing(tmp_path: Path) -> None:
    run_dir = f"run.dir={tmp_path / 'run'}"
    assert here("check", "quickstart", run_dir).text.endswith("this can run")
    shown = here("show", "quickstart", run_dir)
    assert shown.code == 0, shown.text
    assert any("quickstart.yaml:" in line for line in shown.out.splitlines() if "l1_rows" in line)
    assert any("override" in line for line in shown.out.splitlines() if str(tmp_path) in line)
    assert here("stages").code == here("stages", "prefetch").code == 0
    assert "stages" in json.loads(here("schema").out)["properties"]
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_come_to_its_end_is_resumed_to_the_same_end(quick: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(quick, run)
    recorded = json.loads((run / "run.json").read_text())["config"]
    config = tmp_path / "again.yaml"
    config.write_text(yaml.safe_dump(recorded, sort_keys=False))
    outcome = here("run", config, "--resume", f"run.dir={run}")
    assert outcome.code == 0, outcome.text
    summary, before = (json.loads((path / "summary.json").read_text()) for path in (run, quick))
    assert (summary["generation"], summary["resumed_from"], summary["steps"]) == (2, before["last_step"], 0)
    assert summary["dense_digest"] == before["dense_digest"]
    assert [entry["generation"] for entry in json.loads((run / "run.json").read_text())["history"]] == [1]


def test_a_resume_that_would_compute_something_else_is_refused_by_key(quick: Path) -> None:
    outcome = here(
        "run", "quickstart", "--resume", f"run.dir={quick}", "dense_optimizer.lr=0.77", "store.l1_rows=99999"
    )
    assert outcome.code == 2
    assert "dense_optimizer.lr was" in outcome.text
    assert "0.77" in outcome.text
    assert "l1_rows was" not in outcome.text, "where rows lie may change"


def test_there_is_nothing_to_resume_where_no_run_was(tmp_path: Path) -> None:
    outcome = here("run", "quickstart", "--resume", f"run.dir={tmp_path / 'nothing'}")
    assert outcome.code == 2
    assert "no run" in outcome.text


def test_check_says_that_best_effort_is_no_steps_end(tmp_path: Path) -> None:
    effort = ["stages.stream.freshness=best_effort", "stages.stream.budget=1MB/s", "stages.stream.max_age=3s"]
    told = here("check", "quickstart", f"run.dir={tmp_path / 'run'}", *effort)
    assert told.code == 0
    assert "G3 does not hold" in told.text
    assert "at most 3s old" in told.text
