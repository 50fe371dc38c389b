"""``replica --verify``: equal is said where all is equal, and what is not is named."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.files import RealFiles
from pipeline.replica import Replica, View
from pipeline.rowlog import CheckpointReader, read_catalog
from pipeline.session.comparing import SHOWN, compare
from pipeline.session.errors import NoCommonStep, NoRun, OtherRunsStream
from pipeline.session.replica_at import CommonStep, cuts, replica_at
from pipeline.session.rundir import is_live
from pipeline.wire import FileTransport
from tests.e2e.command import here
from tests.e2e.jobs import RAGGED, Job, run_job
from tests.e2e.patience import until
from tests.e2e.test_follow import followed, newest_step

EVERY_THREE = ("stages.stream.every='3 steps'", "stages.source.batches=30")


def kept_at_24(directory: Path, *overrides: str) -> Job:
    """A run whose first process ended with step 24 and whose second went on; the checkpoints of both are kept."""
    run_job(directory, RAGGED, *overrides, "stages.source.batches=24", "checkpoint.keep=9")
    return run_job(directory, RAGGED, *overrides, "checkpoint.keep=9", resume=True)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A cut every 3 steps."""
    return kept_at_24(tmp_path_factory.mktemp("verify") / "run", *EVERY_THREE)


def told(run: Path, *more: str, source: Path | None = None) -> tuple[int, dict[str, Any]]:
    outcome = here("replica", source or run, "--verify", run, "--json", *more)
    return outcome.code, json.loads(outcome.out or "{}")


def forget_newest(run: Path) -> int:
    """As a crash before the last checkpoint leaves a run; returns the step of the one that is the newest then."""
    catalog = run / "checkpoints" / "checkpoints.json"
    listed = json.loads(catalog.read_text())
    listed["checkpoints"] = listed["checkpoints"][1:]
    catalog.write_text(json.dumps(listed))
    return CheckpointReader.newest(RealFiles(), str(run / "checkpoints")).manifest.step


def test_an_ended_run_and_its_replica_are_equal_row_by_row(job: Job) -> None:
    code, compared = told(job.dir)
    assert (code, compared["equal"], compared["step"], compared["different"]) == (0, True, 30, 0)
    assert compared["rows"] == {name: len(arrays["ids"]) for name, arrays in job.tables().items()}
    assert compared["dense_arrays"] == len(job.dense())
    shown = here("replica", job.dir / "stream", "--verify", job.dir)
    assert shown.code == 0
    assert "the replica is the trainer, bit for bit" in shown.out


def test_rows_that_ended_and_rows_that_were_not_admitted_are_neither_missing_nor_extra(tmp_path: Path) -> None:
    dynamic = ("tables.shared.expiry={steps: 4, every: 3}", "tables.wide.admission={after: 3}")
    run = run_job(tmp_path / "run", RAGGED, *EVERY_THREE, *dynamic)
    assert run.summary["store"]["expiry"]["shared"]["expired"] > 0
    code, compared = told(run.dir)
    assert (code, compared["different"]) == (0, 0)
    assert all(compared["rows"].values()), compared["rows"]


def test_columns_that_ride_along_are_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_job(
        tmp_path / "run",
        RAGGED,
        *EVERY_THREE,
        "stages.stream.codec=int8",
        "stages.stream.tables={wide: {states: true}}",
    ).dir
    code, compared = told(run)
    assert (code, compared["different"]) == (0, 0)
    read = View.row_columns

    def changed(view: View, table: str, ids_n: Any, names: Any = None) -> Any:
        weights_nd, versions_n, columns = read(view, table, ids_n, names)
        return weights_nd, versions_n, {name: np.nextafter(values, np.inf) for name, values in columns.items()}

    monkeypatch.setattr(View, "row_columns", changed)
    code, compared = told(run)
    assert (code, compared["different"]) == (1, compared["rows"]["wide"])
    assert all("momentum[0] is" in one["what"] for one in compared["first"]), compared["first"]


def test_weights_are_compared_as_the_codec_sent_them(tmp_path: Path) -> None:
    run_job(tmp_path / "run", RAGGED, *EVERY_THREE, "stages.stream.codec=fp16", "stages.stream.dense=false")
    code, compared = told(tmp_path / "run")
    assert (code, compared["different"], compared["dense_arrays"]) == (0, 0, 0)
    assert compared["notes"] == ["the stream carries no dense weights"]


def test_a_run_whose_last_checkpoint_is_older_than_its_stream_is_compared_at_that_step(tmp_path: Path) -> None:
    run = kept_at_24(tmp_path / "run", *EVERY_THREE).dir
    step = forget_newest(run)
    assert step == 24
    code, compared = told(run)
    assert (code, compared["step"], compared["different"]) == (0, 24, 0)
    assert sum(compared["rows"].values()) > 100


def test_a_run_that_goes_on_is_compared_at_its_newest_checkpoint(tmp_path: Path) -> None:
    """Its source waits for more."""
    found: list[Any] = []

    def then(_replica: Replica) -> None:
        run = tmp_path / "run"
        until(lambda: newest_step(run) == 10)
        assert is_live(run)
        with CommonStep(str(run), run) as both, both.replica.view() as view:
            found.append((view.step, compare(view, both.reader, both.header)))

    followed(tmp_path, "stages.stream.every='10 steps'", "checkpoint.every='20ms'", "checkpoint.keep=100", then=then)
    ((step, compared),) = found
    assert (step, compared.step, compared.different) == (10, 10, 0)
    assert sum(compared.rows.values()) > 10


def test_a_stream_in_shards_is_compared_at_an_earlier_step_too(tmp_path: Path) -> None:
    run = kept_at_24(tmp_path / "run", *EVERY_THREE, "stages.stream.shards=2").dir
    assert told(run)[1]["step"] == 30
    assert forget_newest(run) == 24
    code, compared = told(run)
    assert (code, compared["step"], compared["different"]) == (0, 24, 0)
    assert sum(compared["rows"].values()) > 100


def test_of_two_cuts_of_one_step_the_one_behind_the_fork_counts(tmp_path: Path) -> None:
    run, other = tmp_path / "run", "dense_optimizer.lr=0.2"
    for steps in (12, 24):
        run_job(run, RAGGED, *EVERY_THREE, f"stages.source.batches={steps}", "checkpoint.keep=9", resume=steps > 12)
    assert forget_newest(run) == 12
    accept = ["dense_optimizer.lr"]
    run_job(
        run, RAGGED, *EVERY_THREE, other, "stages.source.batches=24", "checkpoint.keep=9", resume=True, accept=accept
    )
    run_job(run, RAGGED, *EVERY_THREE, other, "checkpoint.keep=9", resume=True)
    assert forget_newest(run) == 24
    with CommonStep(str(run), run) as both:
        assert (both.replica.step, both.replica.position.generation) == (24, 3)
    assert told(run)[0] == 0


def test_where_no_step_is_common_it_says_what_would_work(tmp_path: Path) -> None:
    """The cut of the checkpoint that is left has been trimmed."""
    trims = (
        "stages.stream.snapshot_every='50 steps'",
        "stages.stream.segment_bytes=32768",
        "stages.source.batches=400",
    )
    run = kept_at_24(tmp_path / "run", *trims).dir
    assert forget_newest(run) == 24
    with pytest.raises(
        NoCommonStep, match=r"step 24 \(cuts of steps None and \d+ around it\).*goes to step 400.*let it end"
    ):
        CommonStep(str(run), run).__enter__()
    assert here("replica", run, "--verify", run).code == 2


def test_another_runs_stream_and_a_directory_of_no_run_are_refused(job: Job, tmp_path: Path) -> None:
    other = run_job(tmp_path / "other", RAGGED, "stages.source.batches=3").dir
    outcome = here("replica", other, "--verify", job.dir)
    assert (outcome.code, OtherRunsStream.exit_code) == (2, 2)
    assert "is the stream of run" in outcome.text
    outcome = here("replica", other, "--verify", tmp_path / "nothing")
    assert outcome.code == NoRun.exit_code
    assert "no run" in outcome.text
    assert here("replica", other, "--verify", other, "--follow").code == 2


def pinned(job: Job, beside: int) -> tuple[Replica, CheckpointReader, Any]:
    """A replica that stands so many cuts behind step 24, the checkpoint of step 24, and the stream's header."""
    with CommonStep(str(job.dir), job.dir) as both:
        header = both.header
    directory = job.dir / "checkpoints"
    readers = [
        CheckpointReader(RealFiles(), str(directory / name)) for name in read_catalog(RealFiles(), str(directory))
    ]
    reader = next(reader for reader in readers if reader.manifest.step == 24)
    stream = [FileTransport(str(job.dir / "stream"))]
    standing = cuts(stream)
    steps = sorted({step for _, step in standing})
    wanted = steps[steps.index(24) + beside]
    return replica_at(stream, max(position for position, step in standing if step == wanted)), reader, header


WHATS = {
    (False, False): "the replica's was updated at step",
    (True, False): "the replica does not hold it",
    (False, True): "the trainer does not hold this row",
}
"""What is said of a row, by whether the replica lacks it, and the trainer does."""


@pytest.mark.parametrize("beside", [0, -1, 1])
def test_a_replica_at_another_step_differs_in_rows_that_are_named(job: Job, beside: int) -> None:
    replica, reader, header = pinned(job, beside)
    with replica, replica.view() as view:
        compared = compare(view, reader, header)
        assert (view.step > 24) - (view.step < 24) == beside
        ours = {name: dict(zip(chunk.ids_n.tolist(), chunk.versions_n.tolist(), strict=True))
                for name in reader.manifest.tables for chunk in reader.rows(name)}  # fmt: skip
        theirs = {name: dict(zip(view.ids(name).tolist(), view.lookup_versions(name, view.ids(name))[1].tolist(), strict=True))
                  for name in view.tables}  # fmt: skip
    differ = {
        (name, i)
        for name in ours
        for i in ours[name].keys() | theirs[name].keys()
        if ours[name].get(i) != theirs[name].get(i)
    }
    dense = [one for one in compared.first if one.table.startswith("dense")]
    assert compared.different == len(differ) + len(dense)
    assert bool(dense) == bool(beside)
    assert bool(compared.first) == bool(beside)
    for one in compared.first:
        assert one in dense or (one.table, one.id) in differ
    for one in compared.first:
        if one not in dense:
            lacks = one.id not in theirs[one.table], one.id not in ours[one.table]
            assert WHATS[lacks] in str(one)
    assert all(sum(one.table == name for one in compared.first) <= 2 * SHOWN for name in ours)


def test_weights_that_differ_in_a_bit_are_named(job: Job) -> None:
    replica, reader, header = pinned(job, 0)
    halved = replace(header, tables=tuple(replace(table, codec="fp16") for table in header.tables))
    with replica, replica.view() as view:
        compared = compare(view, reader, halved)
    assert compared.different > 100
    assert all("weight[" in one.what and one.step is not None for one in compared.first), compared.first
    found = re.search(r"weight\[\d+\] is (\S+), the replica's (\S+)", compared.first[0].what)
    assert found is not None
    assert float(found[1]) == pytest.approx(float(found[2]), rel=1e-2)
