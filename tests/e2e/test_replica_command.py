"""The command ``replica`` with its options for where rows go, where it begins and where it stops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.replica import Replica
from tests.e2e.command import here
from tests.e2e.held import held_by
from tests.e2e.jobs import RAGGED, Job, run_job


@pytest.fixture(scope="module", params=[1, 2])
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """58 steps, a cut every 4, checkpoints every 10, some between cuts; states ride along; in one shard, and in two."""
    return run_job(
        tmp_path_factory.mktemp("job") / "run",
        RAGGED,
        "run.steps=58",
        "stages.source.batches=100",
        "checkpoint.every='10 steps'",
        "checkpoint.keep=4",
        "stages.stream.every='4 steps'",
        "stages.stream.snapshot_every='15 steps'",
        "stages.stream.codec=fp16",
        "stages.stream.tables={shared: {states: true}}",
        f"stages.stream.shards={request.param}",
    )


def test_from_each_checkpoint_it_comes_to_what_the_stream_gives(job: Job, tmp_path: Path) -> None:
    with Replica(job.dir) as plain:
        plain.apply_available()
        expected = held_by(plain)
        columns = plain.columns("shared")
        assert columns
        with plain.view() as view:
            ids_n = view.ids("shared")
            states, dense = view.column("shared", columns[0], ids_n), dict(view.dense())
    checkpoints = sorted((job.dir / "checkpoints").glob("step-*"))
    assert len(checkpoints) >= 2
    for checkpoint in checkpoints:
        with Replica(job.dir, checkpoint=checkpoint) as replica:
            assert replica.step == int(checkpoint.name.split("-")[1])
            replica.apply_available()
            assert held_by(replica) == expected
            with replica.view() as view:
                assert np.array_equal(view.column("shared", columns[0], ids_n), states)
                assert dense
                assert {name: array.tobytes() for name, array in view.dense().items()} == {
                    name: array.tobytes() for name, array in dense.items()
                }
    found = here("replica", job.dir, "--from-checkpoint", job.dir, "--dir", tmp_path / "kept", "--json")
    assert found.code == 0
    told = json.loads(found.out)
    assert told["position"] == told["durable"]
    assert told["step"] == 58
    again = json.loads(here("replica", job.dir, "--dir", tmp_path / "kept", "--target", "rowlog", "--json").out)
    assert again["counters"]["cuts"] == 0
    with Replica(job.dir, path=tmp_path / "kept") as replica:
        assert held_by(replica) == expected


def test_it_lists_what_is_retained_and_goes_there(job: Job) -> None:
    cuts = [json.loads(line) for line in here("replica", job.dir, "--retained").out.splitlines()]
    assert [cut["step"] for cut in cuts] == sorted(cut["step"] for cut in cuts)
    assert cuts[0]["step"] < 58
    wanted = next(cut for cut in cuts[::-1] if cut["step"] < 58)
    shown = {}
    for option in (("--at", wanted["cut"]), ("--to-step", str(wanted["step"]))):
        found = here("replica", job.dir, *option, "--table", "wide", "--lookup", "1", "2", "3", "--json")
        assert found.code == 0, found.text
        *rows, told = [json.loads(line) for line in found.out.splitlines()]
        assert told["step"] == wanted["step"]
        assert all(row["step"] <= wanted["step"] for row in rows)
        shown[option[0]] = rows
    assert shown["--at"] == shown["--to-step"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--at", "7"], "a cut is named GENERATION:CUT"),
        (["--at", "1:1", "--to-step", "4"], "one of them"),
        (["--to-step", "4", "--follow"], "one of them"),
        (["--at", "9:9"], "cut 9 of generation 9 cannot be reached"),
        (["--target", "rowlog"], "say in which directory"),
        (["--target", "redis://127.0.0.1:1", "--dir", "x"], "leave out the directory"),
        (["--serve", "--retained"], "--serve goes with"),
    ],
)
def test_options_that_do_not_go_together_are_told(job: Job, options: list[str], told: str) -> None:
    found = here("replica", job.dir, *options)
    assert found.code == 2
    assert told in found.text


def test_a_target_elsewhere_says_what_its_readers_see(job: Job) -> None:
    from tests.replica.own_target import DictTarget

    DictTarget.forget()
    found = here("replica", job.dir, "--target", "tests.replica.own_target:DictTarget", "--json")
    assert "not all rows at one step" in found.text
    assert json.loads(found.out)["step"] == DictTarget.steps[-1] == 58
