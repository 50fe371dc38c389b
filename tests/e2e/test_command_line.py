"""The command line as a user meets it: real processes, exit codes, files."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.command import finish, pipeline, start

SMALL = ("run.steps=40", "store.l1_rows=40000")


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


def test_export_and_replica_agree(quick: Path, tmp_path: Path) -> None:
    for table in json.loads((quick / "summary.json").read_text())["tables"]:
        ours, theirs = tmp_path / "ours.npz", tmp_path / "theirs.npz"
        assert pipeline("export", quick, "--table", table, "--out", ours).code == 0
        assert pipeline("replica", quick, "--table", table, "--export", theirs, "stages.stream.codec=fp32").code in (
            0,
            2,
        )
        assert pipeline("replica", quick, "--table", table, "--export", theirs).code == 0
        with np.load(ours) as one, np.load(theirs) as other:
            assert one["ids"].dtype == np.int64
            assert (np.diff(one["ids"]) > 0).all()
            assert one["weights"].dtype == np.float32
            assert one["version"].shape == (one["ids"].size, 2)
            assert [key for key in one.files if key.startswith("state_")]
            assert np.array_equal(one["ids"], other["ids"])
            assert np.array_equal(one["version"][:, 1], other["version"][:, 1])


def test_dense_export_has_the_digest_of_the_summary(quick: Path, tmp_path: Path) -> None:
    from pipeline.models.digest import digest_of_arrays

    assert pipeline("export", quick, "--dense", "--out", tmp_path / "dense.npz").code == 0
    with np.load(tmp_path / "dense.npz") as arrays:
        digest = digest_of_arrays({name: arrays[name] for name in arrays.files})
    assert digest == json.loads((quick / "summary.json").read_text())["dense_digest"]


def test_rows_says_what_was_never_updated(quick: Path) -> None:
    table = json.loads((quick / "summary.json").read_text())["tables"][0]
    outcome = pipeline("rows", quick, "--table", table, "--ids", "-9223372036854775808", "-1")
    assert outcome.code == 0, outcome.text
    assert "never updated" in outcome.text


def test_interrupt_drains_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    process = start(
        "run", "quickstart", f"run.dir={directory}", "stages.source.epochs=100000", "run.progress_s=0.1"
    )
    wait_for_segment(directory, process)
    outcome = finish(process, signal.SIGINT)
    assert outcome.code == 130, outcome.text
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["outcome"] == "interrupt"
    table, ours, theirs = summary["tables"][0], tmp_path / "ours.npz", tmp_path / "theirs.npz"
    assert pipeline("export", directory, "--table", table, "--out", ours).code == 0
    assert pipeline("replica", directory, "--table", table, "--export", theirs).code == 0
    with np.load(ours) as one, np.load(theirs) as other:
        assert np.array_equal(one["ids"], other["ids"])
        assert np.array_equal(one["version"][:, 1], other["version"][:, 1])


def wait_for_segment(directory: Path, process: object) -> None:
    """Return when the run has published something."""
    import time

    while not any(path.stat().st_size > 100_000 for path in (directory / "stream").glob("*.seg")):
        assert process.poll() is None, process.communicate()  # type: ignore[attr-defined]
        time.sleep(0.05)


REFUSED = {
    "a misspelt key": (["stages.prefetch.lokahead=2"], "lookahead"),
    "a misspelt section": (["stor.l1_rows=5"], "store"),
    "a wrong type": (["store.l1_rows=many"], "store.l1_rows"),
    "an unknown stage": (["stages.prefetch.use=prefech"], "prefetch"),
    "an unknown device": (["device=tpu"], "host"),
    "retries of an ordered stage": (["stages.update.retries=3"], "update"),
    "skips in an ordered stage": (["stages.train.on_error=skip"], "train"),
    "types that do not meet": (["stages.lookup.enabled=false"], "train"),
    "an unknown codec": (["stages.stream.codec=fp7"], "fp16"),
    "an unreadable cut policy": (["stages.stream.every=soon"], "steps"),
    "an L1 smaller than the batch is known to need": (["store.l1_rows=10", "stages.prefetch.max_ids=5000"], "5000"),
    "a feature without its table": (["features.extra={table: nowhere}"], "nowhere"),
    "an SSD tier": (["store.ssd.path=/tmp/x"], "ssd"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_check_refuses(tmp_path: Path, why: str) -> None:
    overrides, named = REFUSED[why]
    outcome = pipeline("check", "quickstart", f"run.dir={tmp_path / 'run'}", *overrides)
    assert outcome.code == 2, outcome.text
    assert named in outcome.text
    assert "Traceback" not in outcome.text
    assert not (tmp_path / "run").exists()


def test_check_show_and_stages_run_nothing(tmp_path: Path) -> None:
    for command in (("check", "quickstart"), ("show", "quickstart"), ("stages",), ("stages", "prefetch"), ("schema",)):
        outcome = pipeline(*command, *([f"run.dir={tmp_path / 'run'}"] if command[-1] == "quickstart" else []))
        assert outcome.code == 0, outcome.text
    assert not (tmp_path / "run").exists()


def test_a_taken_run_dir_is_refused_without_overwrite(quick: Path) -> None:
    outcome = pipeline("run", "quickstart", f"run.dir={quick}", *SMALL)
    assert outcome.code == 2
    assert "--overwrite" in outcome.text


def test_resume_is_refused_by_name(quick: Path) -> None:
    outcome = pipeline("run", "quickstart", "--resume", f"run.dir={quick}")
    assert outcome.code == 2
    assert "resume" in outcome.text


def test_an_l1_smaller_than_a_batch_says_what_it_needs(tmp_path: Path) -> None:
    outcome = pipeline("run", "quickstart", f"run.dir={tmp_path / 'run'}", "store.l1_rows=100", "run.steps=3")
    assert outcome.code == 1
    assert "store.l1_rows" in outcome.text
    assert "Traceback" not in outcome.text
