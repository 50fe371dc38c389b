"""`import --resume`: rows from files into a run that is there, as a step that the run, its replicas and its crashes know like any other."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.replica import Replica
from pipeline.rowlog import CheckpointWriter
from pipeline.session.inspect_rows import newest_checkpoint
from tests.e2e.command import Outcome, finish, here, start
from tests.e2e.patience import until
from tests.e2e.test_import import (
    Arrays,
    Users,
    assert_replica_is_the_trainer,
    exported,
    fresh_job,
    make_dynamic,
    rows,
    saved,
)

AT = 6
"""The step that the run has come to when rows are imported."""


def described(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def import_into(config: Path, file: Path, *words: str | Path) -> Outcome:
    return here("import", config, "--resume", "--table", "user", "--from", file, *words)


def begun(directory: Path, *, disk: bool = False) -> Path:
    """The config of a run that came to step ``AT``."""
    config = fresh_job(directory, disk=disk)
    assert here("run", config, f"run.steps={AT}").code == 0
    return config


def assert_same(left: Arrays, right: Arrays) -> None:
    """Bit for bit but for generations."""
    assert left.keys() == right.keys()
    for name, values in left.items():
        values, others = (values[:, 1], right[name][:, 1]) if name == "version" else (values, right[name])
        assert values.tobytes() == others.tobytes(), name


@pytest.mark.parametrize("disk", [False, True], ids=["memory", "disk"])
def test_rows_become_those_of_the_step_behind_the_checkpoint_and_replicas_follow(tmp_path: Path, disk: bool) -> None:
    config = begun(tmp_path / "job", disk=disk)
    run, given = tmp_path / "job" / "run", rows(500)
    before = {table: exported(run, table, tmp_path / "before.npz") for table in ("user", "item")}
    dense = np.load(dense_of(run, tmp_path))
    with Replica(str(run / "stream")) as lived:
        lived.apply_available()
        outcome = import_into(config, saved(tmp_path))
        assert outcome.code == 0, outcome.text
        assert f"a checkpoint of step {AT + 1}" in outcome.text
        found = exported(run, "user", tmp_path / "found.npz")
        assert found["ids"].tolist() == list(range(500))
        for name in ("weights", "state_momentum"):
            assert found[name].tobytes() == given[name].tobytes()
        assert found["version"].tolist() == [[2, AT + 1]] * 500
        assert_same(exported(run, "item", tmp_path / "item.npz"), before["item"])
        after = np.load(dense_of(run, tmp_path))
        assert all(dense[name].tobytes() == after[name].tobytes() for name in dense.files)
        assert described(run)["fork"]["step"] == AT
        assert here("verify", run).code == 0
        outcome = here("run", config, "--resume", f"run.steps={AT + 1}")
        assert outcome.code == 0, outcome.text
        assert_replica_is_the_trainer(run, tmp_path)
        assert_same(exported(run, "user", tmp_path / "same.npz"), found)
        lived.apply_available()
        assert lived.step == AT + 1
        assert here("run", config, "--resume").code == 0
        lived.apply_available()
        assert lived.step == 14, "200 lines in batches of 16 are 13 steps, and the import is one"
        assert_replica_is_the_trainer(run, tmp_path)
    trained = exported(run, "user", tmp_path / "trained.npz")
    same_n = (trained["weights"] == given["weights"]).all(axis=1)
    assert 0 < np.count_nonzero(~same_n) <= 60, "rows of the log were trained, all others are as they came"


def dense_of(run: Path, directory: Path) -> Path:
    out = directory / "dense.npz"
    assert here("export", run, "--dense", "--out", out).code == 0
    return out


def test_the_bits_behind_it_depend_neither_on_the_tiers_nor_on_crashes(tmp_path: Path) -> None:
    ends = []
    for name, disk, stops in (("memory", False, ()), ("disk", True, (8, 11)), ("again", True, (7,))):
        config = begun(tmp_path / name, disk=disk)
        assert import_into(config, saved(tmp_path)).code == 0
        for step in stops:
            assert here("run", config, "--resume", f"run.steps={step}").code == 0
        assert here("run", config, "--resume").code == 0
        assert_replica_is_the_trainer(tmp_path / name / "run", tmp_path)
        ends.append(
            {table: exported(tmp_path / name / "run", table, tmp_path / "end.npz") for table in ("user", "item")}
        )
    for table in ("user", "item"):
        for other in ends[1:]:
            assert_same(ends[0][table], other[table])


def killed(directory: Path) -> Path:
    """The config of a run that was killed when it had published steps behind its newest checkpoint."""
    config = fresh_job(directory)
    tree = yaml.safe_load(config.read_text())
    source = {"source": tree["stages"].pop("source")}
    tree["stages"] = {**source, "paced": {"use": "tests.e2e.paced:Paced", "seconds": 0.03}, **tree["stages"]}
    tree["stages"]["stream"]["every"] = "1 steps"
    tree["stages"]["source"]["epochs"] = 20
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    assert here("run", config, f"run.steps={AT}").code == 0
    run = directory / "run"
    process = start("run", config, "--resume")
    with Replica(str(run / "stream")) as replica:

        def is_ahead() -> bool:
            replica.apply_available()
            return replica.step > AT + 4

        until(is_ahead)
    assert finish(process, signal.SIGKILL).code == -signal.SIGKILL
    assert newest_checkpoint(run).manifest.step == AT
    return config


def test_what_was_published_behind_the_checkpoint_is_taken_back(tmp_path: Path) -> None:
    config = killed(tmp_path / "job")
    run = tmp_path / "job" / "run"
    with Replica(str(run / "stream")) as lived:
        lived.apply_available()
        assert lived.step > AT + 4
        assert import_into(config, saved(tmp_path)).code == 0
        assert here("run", config, "--resume", f"run.steps={AT + 1}").code == 0
        lived.apply_available()
        assert lived.step == AT + 1
        for table in ("user", "item"):
            ours = exported(run, table, tmp_path / "ours.npz")
            with lived.view() as view:
                assert view.ids(table).tolist() == ours["ids"].tolist()
                assert view.lookup(table, ours["ids"]).tobytes() == ours["weights"].tobytes()
        assert here("run", config, "--resume", "run.steps=20").code == 0
    assert_replica_is_the_trainer(run, tmp_path)


def die(_writer: CheckpointWriter) -> str:
    raise OSError(28, "no space left on device")


def test_an_import_that_dies_leaves_the_run_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, twin = begun(tmp_path / "job", disk=True), begun(tmp_path / "twin", disk=True)
    run, file = tmp_path / "job" / "run", saved(tmp_path)
    before = exported(run, "user", tmp_path / "before.npz")
    with monkeypatch.context() as patched:
        patched.setattr(CheckpointWriter, "commit", die)
        outcome = import_into(config, file)
    assert outcome.code == 1
    assert "no space left" in outcome.text
    assert newest_checkpoint(run).manifest.step == AT
    assert_same(exported(run, "user", tmp_path / "after.npz"), before)
    shutil.copytree(run.parent, tmp_path / "copy")
    assert here("run", config, "--resume").code == 0
    assert_replica_is_the_trainer(run, tmp_path)
    assert here("run", twin, "--resume").code == 0
    for table in ("user", "item"):
        end = exported(tmp_path / "twin" / "run", table, tmp_path / "twin.npz")
        assert_same(exported(run, table, tmp_path / "end.npz"), end)
    moved = f"run.dir={tmp_path / 'copy' / 'run'}"
    assert import_into(config, file, moved).code == 0, "and it can be tried again"
    assert here("run", config, "--resume", moved).code == 0
    assert_replica_is_the_trainer(tmp_path / "copy" / "run", tmp_path)


def test_a_run_without_a_checkpoint_begins_with_them(tmp_path: Path) -> None:
    config = begun(tmp_path / "job")
    run = tmp_path / "job" / "run"
    shutil.rmtree(run / "checkpoints")
    assert import_into(config, saved(tmp_path)).code == 0
    assert newest_checkpoint(run).manifest.step == 1
    assert here("run", config, "--resume").code == 0
    assert_replica_is_the_trainer(run, tmp_path)
    assert newest_checkpoint(run).manifest.step == 14


def test_several_tables_and_again_and_again(tmp_path: Path) -> None:
    config = begun(tmp_path / "job", disk=True)
    run, item = tmp_path / "job" / "run", tmp_path / "item.npz"
    np.savez(item, **rows(700))  # type: ignore[arg-type]
    for times in (1, 2):
        outcome = import_into(config, saved(tmp_path), "--table", "item", "--from", item)
        assert outcome.code == 0, outcome.text
        assert newest_checkpoint(run).manifest.step == AT + times
    assert exported(run, "item", tmp_path / "found.npz")["version"][:700, 1].tolist().count(AT + 2) >= 691
    assert [one["fork"]["step"] for one in [*described(run)["history"], described(run)] if "fork" in one] == [
        AT,
        AT + 1,
    ]
    assert here("run", config, "--resume").code == 0
    assert_replica_is_the_trainer(run, tmp_path)


def test_rows_of_a_dynamic_table_are_there_as_if_used_in_that_step(tmp_path: Path) -> None:
    config, run = fresh_job(tmp_path / "job"), tmp_path / "job" / "run"
    make_dynamic(config)
    assert here("run", config, f"run.steps={AT}").code == 0
    assert import_into(config, saved(tmp_path)).code == 0
    users = Users()
    users.train(1, AT)
    users.bring(AT + 1, range(500))
    assert here("run", config, "--resume").code == 0
    held = users.train(AT + 2)
    assert 60 > len(held) > 5
    assert set(exported(run, "user", tmp_path / "out.npz")["ids"].tolist()) == held
    assert_replica_is_the_trainer(run, tmp_path)


def test_hooks_of_the_config_are_not_called(tmp_path: Path) -> None:
    config = begun(tmp_path / "job", disk=True)
    words = "hooks={never: {use: 'tests.e2e.test_import_into:never', at: before_evict}}"
    assert import_into(config, saved(tmp_path), words).code == 0


def never(table: str, _ids: Any, _rows: Any) -> None:
    raise AssertionError(f"a hook was called for {table}")


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "another width": ({"weights": np.zeros((500, 4), np.float32)}, (), "takes ids int64 [500]"),
    "a NaN": ({"weights": np.full((500, 8), np.nan, np.float32)}, (), "weights of row 0 holds NaN"),
    "an id twice": ({"ids": np.full(500, 3)}, (), "id 3 comes twice"),
    "a state missing": ({"state_momentum": None}, (), "--fresh-states"),
    "another config": ({}, ("dense_optimizer.lr=0.5",), "dense_optimizer.lr was"),
    "other tables": ({}, ("run.seed=9",), "no --accept helps"),
    "an admission": ({}, ("tables.item.admission={after: 2}",), "no --accept helps"),
    "no run": ({}, ("run.dir=NOWHERE",), "holds no run.json"),
    "both ways": ({}, ("--overwrite",), "give one of them"),
}


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return begun(tmp_path_factory.mktemp("untouched") / "job")


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_changes_nothing(tmp_path: Path, untouched: Path, why: str) -> None:
    others, words, said = REFUSED[why]
    run = untouched.parent / "run"
    before, was = described(run), exported(run, "user", tmp_path / "was.npz")
    outcome = import_into(
        untouched, saved(tmp_path, **others), *(one.replace("NOWHERE", str(tmp_path / "no")) for one in words)
    )
    assert outcome.code == 2, outcome.text
    assert said in outcome.text
    assert described(run) == before
    assert_same(exported(run, "user", tmp_path / "is.npz"), was)
