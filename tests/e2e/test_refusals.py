"""What cannot run is refused before anything is started, with its place and what would do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.command import here
from tests.e2e.small import good_job, lines

REFUSED = {
    "a misspelt key": (["stages.prefetch.lokahead=2"], ["stages.prefetch.lokahead", "did you mean 'lookahead'"]),
    "a misspelt section": (["stor.l1_rows=5"], ["'stor'", "did you mean 'store'"]),
    "a wrong type": (["store.l1_rows=many"], ["store.l1_rows", "'many'"]),
    "an unknown stage": (["stages.prefetch.use=prefech"], ["did you mean 'prefetch'"]),
    "an unknown device": (["device=tpu"], ["device", "'host'"]),
    "a device that is not there": (["device=cuda"], ["device", "device=host"]),
    "retries of an ordered stage": (["stages.update.retries=3"], ["stages.update", "effects ordered"]),
    "skips in an ordered stage": (["stages.train.on_error=skip"], ["stages.train", "effects ordered"]),
    "types that do not meet": (["stages.lookup.enabled=false"], ["stages.train", "consumes LookedUp"]),
    "an unknown codec": (["stages.stream.codec=fp7"], ["stages.stream.codec", "fp16"]),
    "a table name that is none": (
        ["tables={user: {dim: 8}, item: {dim: 8}, 'a b': {dim: 8}}"],
        ["tables", "'a b' does not match [A-Za-z0-9_.-]{1,128}"],
    ),
    "a stream of an unknown table": (
        ["stages.stream.tables={usr: {codec: fp16}}"],
        ["stages.stream.tables.usr", "no such table; the tables are user, item"],
    ),
    "a misspelt key of a streamed table": (["stages.stream.tables={user: {state: true}}"], ["did you mean 'states'"]),
    "an unknown codec of a streamed table": (
        ["stages.stream.tables={user: {codec: fp7}}"],
        ["tables.user.codec", "fp16"],
    ),
    "states of rows that have none": (
        ["stages.stream.tables={user: {states: true}}", "tables.user.optimizer={kind: sgd}"],
        ["stages.stream.tables.user.states", "no state column", "they have weight"],
    ),
    "identities of rows that have none": (
        ["stages.stream.tables={user: {identities: true}}"],
        ["stages.stream.tables.user.identities", "no meta column"],
    ),
    "a stream of no table": (
        ["stages.stream.tables={user: {enabled: false}, item: {enabled: false}}"],
        ["stages.stream.tables", "no table is left to be streamed"],
    ),
    "best effort without a budget": (["stages.stream.freshness=best_effort"], ["stages.stream", "budget: 2MB/s"]),
    "a budget of an exact stream": (["stages.stream.budget=1MB/s"], ["stages.stream", "freshness: best_effort"]),
    "a budget that is none": (
        ["stages.stream.freshness=best_effort", "stages.stream.budget=fast"],
        ["stages.stream.budget", "fast"],
    ),
    "a budget that carries no frame": (
        ["stages.stream.freshness=best_effort", "stages.stream.budget=10"],
        ["stages.stream.budget", "at least 1000"],
    ),
    "rows that are too old before a cut can carry them": (
        ["stages.stream.freshness=best_effort", "stages.stream.budget=1MB/s", "stages.stream.every=2s"],
        ["stages.stream", "max_age of 8 s"],
    ),
    "an unreadable cut policy": (["stages.stream.every=soon"], ["stages.stream.every", "10 steps"]),
    "an L1 smaller than a batch of prefetch": (
        ["stages.prefetch.max_ids=500"],
        ["store.l1_rows is 100", "at least 500"],
    ),
    "an L1 smaller than a batch of the source": (
        ["stages.source.max_ids=500"],
        ["stages.source.max_ids", "at least 500"],
    ),
    "a feature without its table": (["features.extra={table: nowhere}"], ["'nowhere'", "user"]),
    "a feature that the source does not yield": (
        ["features.extra={table: user}"],
        ["features.extra", "yields user, item"],
    ),
    "memory over the disk with no room for a batch": (
        ["store.ssd.path=/tmp/x", "store.dram_bytes=1000"],
        ["store.dram_bytes is 1000", "set store.dram_bytes to at least"],
    ),
    "a directory named twice": (["store.ssd.path=[/tmp/x, /tmp/x]"], ["store.ssd.path", "named twice"]),
    "a list of tiers that are none": (
        ["store.tiers=[dram, ssd]"],
        ["store.tiers", "'dram' is no tier; one is written"],
    ),
    "an unknown model": (["model.use=dlrmm"], ["model", "did you mean 'dlrm'"]),
    "an unknown option of the model": (["model.topmlp=[8, 1]"], ["model", "did you mean 'top_mlp'"]),
    "a model that cannot take its features": (["tables.item.dim=16"], ["needs one dim", "'item': 16"]),
    "an unknown dense optimizer": (["dense_optimizer.use=Adagra"], ["dense_optimizer", "did you mean 'Adagrad'"]),
    "an unknown option of it": (["dense_optimizer.options.momentun=1"], ["dense_optimizer", "'momentun' is not known"]),
    "an unknown optimizer of a table": (
        ["tables.item.optimizer.kind=adan"],
        ["tables.item.optimizer.kind", "did you mean 'adam'"],
    ),
    "an unknown schedule": (["dense_optimizer.schedule.use=cosin"], ["did you mean 'cosine'"]),
    "a held-out source that is none": (["stages.eval={source: {use: update}}"], ["stages.eval.source", "no source"]),
    "a misspelt key of a held-out source": (
        ["stages.eval={source: {use: synthetic, samples: 9, features: {user: {ids: 5}}, dens: 1}}"],
        ["stages.eval.source", "did you mean 'dense'"],
    ),
    "a step count of zero": (["run.steps=0"], ["run.steps"]),
}


@pytest.mark.parametrize("why", REFUSED)
def test_check_refuses(tmp_path: Path, why: str) -> None:
    overrides, said = REFUSED[why]
    outcome = here("check", good_job(tmp_path), *overrides)
    assert outcome.code == 2, outcome.text
    for part in said:
        assert part in outcome.text
    assert "Traceback" not in outcome.text
    assert not (tmp_path / "run").exists()


def test_run_refuses_it_too_and_leaves_the_run_before_alone(tmp_path: Path) -> None:
    job = good_job(tmp_path)
    assert here("run", job).code == 0
    before = (tmp_path / "run" / "summary.json").read_bytes()
    for overrides in (["device=cuda"], ["model.use=dlrmm"], ["store.l1_row=5"]):
        assert here("run", job, "--overwrite", *overrides).code == 2
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def test_a_problem_in_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    job = good_job(tmp_path)
    text = job.read_text().replace("l1_rows: 100", "l1_rows: 100\n  polcy: lru")
    job.write_text(text)
    line = text.splitlines().index("  polcy: lru") + 1
    outcome = here("check", job)
    assert outcome.code == 2
    assert f"job.yaml:{line}: store.polcy: unknown key 'polcy'; did you mean 'policy'?" in outcome.text


def test_a_directory_that_holds_a_run_is_taken(tmp_path: Path) -> None:
    job = good_job(tmp_path)
    assert here("run", job).code == 0
    refused = here("run", job)
    assert refused.code == 2
    assert "already holds a run" in refused.text
    assert "--overwrite" in refused.text
    assert here("run", job, "--overwrite").code == 0


def test_what_no_run_wrote_is_never_removed(tmp_path: Path) -> None:
    job = good_job(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    refused = here("run", job, "--overwrite")
    assert refused.code == 2
    assert "thesis.txt" in refused.text
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_a_file_in_the_place_of_the_run_directory_is_named(tmp_path: Path) -> None:
    job = good_job(tmp_path)
    for taken in (job, job / "below"):
        refused = here("run", job, f"run.dir={taken}")
        assert refused.code == 2
        assert "choose another run.dir" in refused.text


def test_an_l1_smaller_than_a_batch_says_where_and_what_it_needs(tmp_path: Path) -> None:
    outcome = here("run", good_job(tmp_path), "store.l1_rows=20")
    assert outcome.code == 1
    assert "store.l1_rows is 20" in outcome.text
    first = [line.split(",") for line in lines()[:16]]
    need = len({row[0] for row in first}) + len({row[1] for row in first})
    assert f"step 1 needs {need} distinct rows" in outcome.text
    assert f"at least {need}" in outcome.text
    assert "'file': 'log.csv', 'sample': 16" in outcome.text
    assert "Traceback" not in outcome.text


def test_a_feature_that_the_source_does_not_yield_is_named(tmp_path: Path) -> None:
    """A source of a user's own: what it yields shows at its first batch."""
    job = good_job(tmp_path)
    source = "{use: 'tests.e2e.ragged:RaggedSource', features: [user, item]}"
    job.write_text(job.read_text().replace("  source:\n", f"  source: {source}\n  unused:\n    enabled: false\n"))
    outcome = here("run", job, "features.extra={table: user}")
    assert outcome.code == 1, outcome.text
    assert "lacks the features ['extra']" in outcome.text
