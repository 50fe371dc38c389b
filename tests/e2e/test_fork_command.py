"""`run --resume --accept KEY` as a user types it: what is refused and why, what is recorded, and that replicas follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.command import here
from tests.e2e.small import good_job

LR = "dense_optimizer.lr=0.02"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The config of a run that came to step 6."""
    path = good_job(tmp_path)
    assert here("run", path, "run.steps=6").code == 0
    return path


def described(job: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.parent / "run" / "run.json").read_text())
    return found


def forget(job: Path, *keys: str) -> None:
    """Take keys out of what ``run.json`` tells of the config, as if its version had not known them."""
    found = described(job)
    for key in keys:
        *above, last = key.split(".")
        holder = found["config"]
        for name in above:
            holder = holder[name]
        del holder[last]
    (job.parent / "run" / "run.json").write_text(json.dumps(found))


REFUSED = {
    "a key that was not accepted": ([LR], ["dense_optimizer.lr was 0.01 and is 0.02", "--accept each KEY"]),
    "one of two": (
        [LR, "stages.source.batch_size=8", "--accept", "dense_optimizer.lr"],
        ["computed: stages.source.batch_size was 16 and is 8."],
    ),
    "a key that is as it was": (
        ["--accept", "dense_optimizer.lr"],
        ["--accept dense_optimizer.lr", "nothing does", "Leave it away"],
    ),
    "a key that nobody knows": (
        [LR, "--accept", "dense_optimizer.lr", "--accept", "dense_optimizer.rate"],
        ["--accept dense_optimizer.rate:", "dense_optimizer.lr was 0.01 and is 0.02"],
    ),
    "a key that may differ anyway": (["store.l1_rows=90", "--accept", "store.l1_rows"], ["--accept store.l1_rows:"]),
    "another seed": (["run.seed=2", "--accept", "run.seed"], ["no --accept helps", "run.seed was 1 and is 2"]),
    "another width": (
        ["tables.user.dim=16", "tables.item.dim=16", "model.bottom_mlp=[8, 16]", "--accept", "tables"],
        ["no --accept helps", "tables.item.dim was 8 and is 16"],
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_it_refuses(job: Path, why: str) -> None:
    arguments, said = REFUSED[why]
    before = described(job)
    outcome = here("run", job, "--resume", "run.steps=9", *arguments)
    assert outcome.code == 2, outcome.text
    for part in said:
        assert part in outcome.text
    assert described(job) == before, "a refusal leaves the run as it was"


def test_accept_goes_with_resume(job: Path) -> None:
    outcome = here("run", job, "--accept", "dense_optimizer.lr", LR)
    assert outcome.code == 2
    assert "give both" in outcome.text


def test_an_accepted_key_makes_a_fork_that_replicas_follow(job: Path) -> None:
    outcome = here("run", job, LR, "--resume", "--accept", "dense_optimizer.lr")
    assert outcome.code == 0, outcome.text
    assert "a fork: from here on with another dense_optimizer.lr" in outcome.text
    assert described(job)["fork"] == {"step": 6, "accepted": {"dense_optimizer.lr": {"was": 0.01, "is": 0.02}}}
    run, exports = job.parent / "run", []
    assert json.loads((run / "summary.json").read_text())["rewind"]["step"] == 6
    for command, flag in (("export", "--out"), ("replica", "--export")):
        out = job.parent / f"{command}.npz"
        assert here(command, run, "--table", "user", flag, out).code == 0
        with np.load(out) as arrays:
            exports.append({name: arrays[name] for name in ("ids", "weights")})
    assert np.array_equal(exports[0]["ids"], exports[1]["ids"])
    assert exports[0]["weights"].tobytes() == exports[1]["weights"].tobytes()


def test_another_machine_is_asked_about(job: Path) -> None:
    path = job.parent / "run" / "run.json"
    before = described(job)
    before["environment"]["cpu"] = "an abacus"
    path.write_text(json.dumps(before))
    refused = here("run", job, "--resume")
    assert refused.code == 2
    assert "machine.cpu was 'an abacus' and is" in refused.text
    assert here("run", job, "--resume", "--accept", "machine").code == 0
    assert described(job)["fork"]["accepted"]["machine.cpu"]["was"] == "an abacus"


def test_a_run_of_a_version_that_did_not_know_todays_keys_goes_on_where_they_are_at_their_defaults(job: Path) -> None:
    forget(job, "hooks", "store.bad_gradients", "tables.user.rounding", "tables.item.admission", "tables.item.schedule")
    other = here("run", job, "--resume", "run.steps=9", "tables.user.rounding=nearest")
    assert other.code == 2, other.text
    assert "computed: tables.user.rounding was 'stochastic' and is 'nearest'." in other.text
    assert described(job)["generation"] == 1
    same = here("run", job, "--resume", "run.steps=9")
    assert same.code == 0, same.text
    assert described(job)["resumed_from"] == 6
    assert "fork" not in described(job)
    assert described(job)["config"]["tables"]["user"]["rounding"] == "stochastic"
