"""Whatever codec a stream has: a replica holds what each of the trainer's rows decodes to, bit for bit, through deaths and forks too."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.rows.codec.formulas import KINDS
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, run_job
from tests.e2e.test_fork import ACCEPT, CUTS, OTHER, TRIMMED
from tests.e2e.test_resume import DISK, EVERY, die_behind_a_checkpoint
from tests.support.grids import grid

WEIGHTS = {"singles": (), "narrow": ("tables.shared.weights=bf16", "tables.wide.weights=fp16")}


@pytest.mark.parametrize(
    ("codec", "weights", "every"),
    grid(
        KINDS,
        WEIGHTS,
        ["2 steps", "2ms"],
        always=[("bf16", "narrow", "2ms"), ("int8", "singles", "2 steps"), ("int4", "narrow", "2 steps"),
                ("fp16", "narrow", "2ms"), ("fp32", "narrow", "2 steps")],
    ),
)  # fmt: skip
def test_after_the_run_a_replica_holds_what_the_rows_decode_to(
    tmp_path: Path, codec: str, weights: str, every: str
) -> None:
    stream = (f"stages.stream.codec={codec}", f"stages.stream.every='{every}'")
    assert_replica_equals(run_job(tmp_path / "run", RAGGED, *stream, *WEIGHTS[weights]), codec)


@pytest.mark.parametrize(
    ("codec", "disk"), grid(["bf16", "int8", "int4"], [(), DISK], always=[("int8", DISK), ("bf16", ()), ("int4", ())])
)
def test_a_resumed_run_proves_its_rows_and_a_late_replica_has_them(
    tmp_path: Path, codec: str, disk: tuple[str, ...]
) -> None:
    directory, stream = tmp_path / "run", (f"stages.stream.codec={codec}", *TRIMMED, *disk)
    last = die_behind_a_checkpoint(directory, *stream)
    job = run_job(directory, RAGGED, EVERY, CUTS, *stream, resume=True)
    assert job.summary["proof"] == f"the rows of step {last} are those that were published"
    assert_replica_equals(job, codec)


@pytest.mark.parametrize("codec", ["int8"])
def test_replicas_follow_a_fork(tmp_path: Path, codec: str) -> None:
    directory, stream = tmp_path / "run", (f"stages.stream.codec={codec}",)
    die_behind_a_checkpoint(directory, *stream)
    job = run_job(directory, OTHER, EVERY, CUTS, *stream, resume=True, accept=ACCEPT)
    assert job.summary["rewind"]["rows"] > 0
    assert_replica_equals(job, codec)
