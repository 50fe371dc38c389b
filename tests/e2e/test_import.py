"""`import`: a run that begins with rows from files is one that trains, streams, dies and goes on like any other."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pipeline.rowlog import CheckpointWriter
from pipeline.store import ExpiryRule
from tests.e2e.command import finish, here, start
from tests.e2e.patience import until
from tests.e2e.small import good_job, lines
from tests.store.expiry_oracle import PlainUses

Arrays = dict[str, np.ndarray[Any, Any]]
FORMS = ("npz", "parquet", "safetensors")


def exported(run: Path, table: str, out: Path) -> Arrays:
    assert here("export", run, "--table", table, "--out", out).code == 0
    with np.load(out) as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_replica_is_the_trainer(run: Path, directory: Path) -> None:
    for table in ("user", "item"):
        trainer, out = exported(run, table, directory / "trainer.npz"), directory / "replica.npz"
        assert here("replica", run, "--table", table, "--export", out).code == 0
        with np.load(out) as replica:
            assert np.array_equal(replica["ids"], trainer["ids"])
            assert replica["weights"].tobytes() == trainer["weights"].tobytes()


def fresh_job(directory: Path, *, disk: bool = False) -> Path:
    directory.mkdir()
    config = good_job(directory)
    if disk:
        tree = yaml.safe_load(config.read_text())
        tree["store"] = {"l1_rows": 80, "ssd": {}}
        config.write_text(yaml.safe_dump(tree, sort_keys=False))
    return config


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run that came to step 6."""
    config = fresh_job(tmp_path / "old")
    assert here("run", config, "run.steps=6").code == 0
    return tmp_path / "old" / "run"


def rows(count: int = 500, **others: Any) -> Arrays:
    """Rows for the table ``user``, most of them of ids that the log never names."""
    weights = np.random.default_rng(7).standard_normal((count, 8)).astype(np.float32)
    given = {"ids": np.arange(count), "weights": weights, "state_momentum": np.full(count, 0.5, np.float32)}
    return {name: values for name, values in {**given, **others}.items() if values is not None}


def saved(directory: Path, **others: Any) -> Path:
    np.savez(directory / "rows.npz", **rows(**others))  # type: ignore[arg-type]  # of numpy's own stubs
    return directory / "rows.npz"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("disk", [False, True], ids=["memory", "disk"])
def test_what_export_writes_comes_back_the_same_bits(tmp_path: Path, old: Path, form: str, disk: bool) -> None:
    words: list[str | Path] = []
    for table in ("user", "item"):
        assert here("export", old, "--table", table, "--out", tmp_path / f"{table}.{form}").code == 0
        words += ["--table", table, "--from", tmp_path / f"{table}.{form}"]
    outcome = here("import", fresh_job(tmp_path / "new", disk=disk), *words)
    assert outcome.code == 0, outcome.text
    for table in ("user", "item"):
        was = exported(old, table, tmp_path / "was.npz")
        now = exported(tmp_path / "new" / "run", table, tmp_path / "now.npz")
        assert was.keys() == now.keys()
        was["version"], now["version"] = was["version"][:, 1], now["version"][:, 1]
        for name, values in was.items():
            assert values.tobytes() == now[name].tobytes(), name
    assert here("verify", tmp_path / "new" / "run").code == 0


@pytest.mark.parametrize("steps", [0, 400], ids=["without versions", "of a later step than the run comes to"])
@pytest.mark.parametrize("disk", [False, True], ids=["memory", "disk"])
def test_a_replica_gets_every_imported_row(tmp_path: Path, steps: int, disk: bool) -> None:
    config = fresh_job(tmp_path / "new", disk=disk)
    versions = np.tile([3, steps], (500, 1)) if steps else None
    outcome = here("import", config, "--table", "user", "--from", saved(tmp_path, version=versions))
    assert outcome.code == 0, outcome.text
    run = tmp_path / "new" / "run"
    outcome = here("run", config, "--resume", "run.steps=5")
    assert outcome.code == 0, outcome.text
    assert len(exported(run, "user", tmp_path / "all.npz")["ids"]) >= 500
    assert_replica_is_the_trainer(run, tmp_path)
    assert here("run", config, "--resume").code == 0
    trained, given = exported(run, "user", tmp_path / "all.npz"), rows()
    same_n = (trained["weights"][:500] == given["weights"]).all(axis=1)
    assert 0 < np.count_nonzero(~same_n) <= 60, "rows of the log were trained, all others are as they came"
    assert_replica_is_the_trainer(run, tmp_path)


def test_killed_right_after_the_import_it_goes_on_from_it(tmp_path: Path) -> None:
    config = fresh_job(tmp_path / "new")
    tree = yaml.safe_load(config.read_text())
    source = {"source": tree["stages"].pop("source")}
    tree["stages"] = {**source, "paced": {"use": "tests.e2e.paced:Paced"}, **tree["stages"]}
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    assert here("import", config, "--table", "user", "--from", saved(tmp_path)).code == 0
    run = tmp_path / "new" / "run"
    process = start("run", config, "--resume")
    until(lambda: any(path.stat().st_size > 5000 for path in (run / "stream").glob("*.seg*")))
    assert finish(process, signal.SIGKILL).code == -signal.SIGKILL
    outcome = here("run", config, "--resume")
    assert outcome.code == 0, outcome.text
    assert_replica_is_the_trainer(run, tmp_path)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another width": ({"weights": np.zeros((500, 4), np.float32)}, "takes ids int64 [500], weights float32 [500, 8]"),
    "another dtype": ({"weights": np.zeros((500, 8))}, "weights is float64 [500, 8]"),
    "fewer rows of one": ({"weights": np.zeros((499, 8), np.float32)}, "weights is float32 [499, 8]"),
    "an id twice": ({"ids": np.full(500, 3)}, "id 3 comes twice"),
    "a NaN": ({"weights": np.full((500, 8), np.nan, np.float32)}, "weights of row 0 holds NaN"),
    "a state missing": ({"state_momentum": None}, "--fresh-states"),
    "an unknown state": ({"state_exp_avg": np.zeros(500, np.float32)}, "state_exp_avg is unknown"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_changes_nothing(tmp_path: Path, old: Path, why: str) -> None:
    others, said = REFUSED[why]
    before = exported(old, "user", tmp_path / "before.npz")
    config, file = old.parent / "job.yaml", saved(tmp_path, **others)
    outcome = here("import", config, "--table", "user", "--from", file, "--overwrite")
    assert outcome.code == 2, outcome.text
    assert said in outcome.text
    after = exported(old, "user", tmp_path / "after.npz")
    assert all(values.tobytes() == after[name].tobytes() for name, values in before.items())
    assert here("import", config, "--table", "user", "--from", file, f"run.dir={tmp_path / 'none'}").code == 2
    assert not (tmp_path / "none").exists()


def test_states_may_begin_anew(tmp_path: Path) -> None:
    config = fresh_job(tmp_path / "new")
    file = saved(tmp_path, state_momentum=None)
    assert here("import", config, "--table", "user", "--from", file, "--fresh-states").code == 0
    found = exported(tmp_path / "new" / "run", "user", tmp_path / "found.npz")
    assert not found["state_momentum"].any()
    assert found["weights"].tobytes() == rows()["weights"].tobytes()


def test_a_count_of_steps_that_is_left_behind_is_told_of(tmp_path: Path) -> None:
    key, moments = "user.weight", torch.rand(20, 8)
    states = {"exp_avg": moments, "exp_avg_sq": moments.square(), "step": torch.tensor(12.0)}
    torch.save({"model": {key: moments.to(torch.bfloat16)}, "optimizer": {"state": {key: states}}}, tmp_path / "m.pt")
    for bias, told in ((False, True), (True, False)):
        config = fresh_job(tmp_path / str(bias))
        adam = f"tables.user.optimizer={{kind: adam, rowwise_bias_correction: {str(bias).lower()}}}"
        outcome = here("import", config, adam, "--table", "user", "--from", tmp_path / "m.pt")
        assert outcome.code == 0, outcome.text
        assert ("counts 12 steps" in outcome.text) == told
        found = exported(tmp_path / str(bias) / "run", "user", tmp_path / "found.npz")
        assert found["weights"].tobytes() == moments.to(torch.bfloat16).float().numpy().tobytes()
        assert ("state_row_counter" in found) == bias


def test_a_full_disk_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_writer: CheckpointWriter) -> str:
        raise OSError(28, "no space left on device")

    config = fresh_job(tmp_path / "new")
    words = ("import", config, "--table", "user", "--from", saved(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(CheckpointWriter, "commit", full)
        outcome = here(*words)
    assert outcome.code == 1
    assert "no space left" in outcome.text
    assert not [path for path in (tmp_path / "new" / "run").iterdir() if path.name != ".lock"]
    assert here(*words).code == 0, "and it can be tried again"


def test_a_process_that_dies_while_it_imports_leaves_nothing_to_resume(tmp_path: Path) -> None:
    config = fresh_job(tmp_path / "new")
    assert here("import", config, "--table", "user", "--from", saved(tmp_path)).code == 0
    (tmp_path / "new" / "run" / "run.json").unlink()  # it is written last
    outcome = here("run", config, "--resume")
    assert outcome.code == 2
    assert "holds no run.json" in outcome.text


def test_a_taken_directory_is_refused(tmp_path: Path, old: Path) -> None:
    outcome = here("import", old.parent / "job.yaml", "--table", "user", "--from", saved(tmp_path))
    assert outcome.code == 2
    assert "already holds a run" in outcome.text


def narrow_job(directory: Path, weights: str, states: str = "fp32") -> Path:
    config = fresh_job(directory)
    tree = yaml.safe_load(config.read_text())
    tree["tables"]["user"] |= {"optimizer": {"kind": "adam"}, "weights": weights, "states": states}
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    return config


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("weights", "states"), [("fp16", "bf16"), ("bf16", "fp32")])
def test_rows_in_16_bits_come_back_as_they_were_exported(tmp_path: Path, form: str, weights: str, states: str) -> None:
    assert here("run", narrow_job(tmp_path / "old", weights, states), "run.steps=6").code == 0
    file = tmp_path / f"user.{form}"
    assert here("export", tmp_path / "old" / "run", "--table", "user", "--out", file).code == 0
    before = exported(tmp_path / "old" / "run", "user", tmp_path / "before.npz")
    new = narrow_job(tmp_path / "new", weights, states)
    done = here("import", new, "--table", "user", "--from", file)
    assert done.code == 0, done.text
    after = exported(tmp_path / "new" / "run", "user", tmp_path / "after.npz")
    assert before["weights"].dtype == (np.float16 if weights == "fp16" else np.float32)
    for name in before.keys() - {"version"}:
        np.testing.assert_array_equal(after[name], before[name], name)


def test_float32_becomes_what_the_table_keeps_and_what_that_cannot_hold_is_refused(tmp_path: Path) -> None:
    new, file = narrow_job(tmp_path / "new", "fp16"), tmp_path / "rows.npz"
    given = rows(100, state_momentum=None)
    np.savez(file, **given)  # type: ignore[arg-type]
    done = here("import", new, "--table", "user", "--from", file, "--fresh-states")
    assert done.code == 0, done.text
    found = exported(tmp_path / "new" / "run", "user", tmp_path / "found.npz")
    np.testing.assert_array_equal(found["weights"], given["weights"].astype(np.float16))
    given["weights"][7, 3] = 70_000.0
    np.savez(file, **given)  # type: ignore[arg-type]
    refused = here("import", new, "--table", "user", "--from", file, "--fresh-states", "--overwrite")
    assert refused.code != 0
    assert "weights of row 7" in refused.text
    assert "float16 cannot hold" in refused.text
    again = exported(tmp_path / "new" / "run", "user", tmp_path / "again.npz")
    np.testing.assert_array_equal(again["weights"], found["weights"])


AFTER, RULE = 3, ExpiryRule(5, None, "last_use", 2)


def make_dynamic(config: Path) -> None:
    """Rows of `user` have to be admitted, and expire."""
    tree = yaml.safe_load(config.read_text())
    expiry = {"steps": RULE.steps, "every": RULE.every}
    tree["tables"]["user"] |= {"admission": {"after": AFTER}, "expiry": expiry}
    config.write_text(yaml.safe_dump(tree, sort_keys=False))


class Users:
    """Which users have rows, one id at a time, from the log of the job alone."""

    def __init__(self) -> None:
        self.uses, self.seen = PlainUses(RULE), Counter[int]()
        users = [int(line.split(",")[0]) for line in lines(200)]
        self._batches = [users[start : start + 16] for start in range(0, 200, 16)]

    def bring(self, step: int, ids: Iterable[int]) -> None:
        for user in ids:
            self.uses.last[user], self.seen[user] = step, max(self.seen[user], AFTER)
            self.uses.uses[user] += 1

    def train(self, first: int, count: int | None = None) -> set[int]:
        """So many batches of the log, all that are left by default, as steps from ``first`` on."""
        while self._batches and count != 0:
            batch, count = self._batches.pop(0), None if count is None else count - 1
            ended = self.uses.step(first, [user for user in batch if self.seen[user] >= AFTER])
            self.seen.update(batch)
            for user in ended:
                del self.seen[user]
            first += 1
        return set(self.uses.last)


def test_rows_of_a_dynamic_table_are_there_as_if_used_once_at_the_beginning(tmp_path: Path) -> None:
    config, run = fresh_job(tmp_path / "new"), tmp_path / "new" / "run"
    make_dynamic(config)
    assert here("import", config, "--table", "user", "--from", saved(tmp_path)).code == 0
    users = Users()
    users.bring(0, range(500))
    assert here("run", config, "--resume", "run.steps=4").code == 0
    held = users.train(1, 4)
    assert held == set(range(500)), "none has gone unused for so long"
    assert set(exported(run, "user", tmp_path / "out.npz")["ids"].tolist()) == held
    assert here("run", config, "--resume").code == 0
    held = users.train(5)
    assert held < set(range(60))
    assert set(exported(run, "user", tmp_path / "out.npz")["ids"].tolist()) == held
    assert_replica_is_the_trainer(run, tmp_path)
