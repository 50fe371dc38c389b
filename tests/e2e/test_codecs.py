"""Whatever codec a stream has: a replica holds what each of the trainer's rows decodes to, bit for bit, through deaths and forks too."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest

from pipeline.replica import Replica
from pipeline.rows.codec import registry
from pipeline.rows.codec.formulas import KINDS
from pipeline.stream import training
from pipeline.wire import FileTransport, HeaderFrame
from pipeline.wire.reading import FrameReader
from tests.e2e.command import here
from tests.e2e.followed import assert_replica_equals
from tests.e2e.jobs import RAGGED, run_job
from tests.e2e.test_fork import ACCEPT, CUTS, OTHER, TRIMMED
from tests.e2e.test_resume import DISK, EVERY, die_behind_a_checkpoint
from tests.support.grids import grid

SNAPSHOTS = "stages.stream.snapshot_every='5 steps'"
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
    directory, stream = tmp_path / "run", (f"stages.stream.codec={codec}", SNAPSHOTS, *disk)
    last = die_behind_a_checkpoint(directory, *stream)
    job = run_job(directory, RAGGED, EVERY, CUTS, *stream, resume=True)
    assert job.summary["proof"] == f"the rows of step {last} are those that were published"
    assert_replica_equals(job, codec)


OWN = "tests.rows.own_codec:SIGNS"


def test_a_codec_of_ones_own_is_a_line_in_the_config(tmp_path: Path) -> None:
    directory, stream = tmp_path / "run", (f"stages.stream.codec={OWN}", CUTS)
    last = die_behind_a_checkpoint(directory, *stream)
    job = run_job(directory, RAGGED, EVERY, *stream, resume=True)
    assert job.summary["proof"] == f"the rows of step {last} are those that were published"
    assert_replica_equals(job, "signs")


def test_a_replica_elsewhere_has_to_be_told_of_it(tmp_path: Path) -> None:
    with patch.dict(registry._known):
        run_job(tmp_path / "run", RAGGED, f"stages.stream.codec={OWN}", "run.steps=5")
    source = str(tmp_path / "run")
    for command in (["verify", source], ["replica", source, "--json"]):
        with patch.dict(registry._known):
            registry._known.pop("signs", None)
            refused = here(*command)
            assert refused.code == 1
            assert "no codec 'signs'; the codecs are fp32, fp16, bf16, int8, int4;" in refused.text
            assert "--codec or Replica(codecs=...)" in refused.text
            assert here(*command, "--codec", OWN).code == 0
    assert here("replica", source, "--codec", "tests.rows.own_codec:SINGS").code == 2
    with patch.dict(registry._known):
        registry._known.pop("signs", None)
        with Replica(source, codecs=[OWN]) as replica:
            assert replica.apply_available() > 0


def headers(directory: Path) -> list[HeaderFrame]:
    transport, reader = FileTransport(str(directory / "stream")), FrameReader()
    parts = list(transport.newest_first())[::-1]
    transport.close()
    return [frame for part in parts for data in part if isinstance(frame := reader.read(data), HeaderFrame)]


@pytest.mark.parametrize("trimmed", [False, True])
def test_a_dictionary_lives_as_long_as_the_run(tmp_path: Path, trimmed: bool) -> None:
    directory = tmp_path / "run"
    stream = ("stages.stream.dictionary_bytes=1024", CUTS, "stages.stream.codec=int8", *(TRIMMED if trimmed else ()))
    with patch.object(training, "NUM_SAMPLES", 12):
        last = die_behind_a_checkpoint(directory, *stream)
        (trained,) = {header.dictionary for header in headers(directory)} - {b""}
        job = run_job(directory, RAGGED, EVERY, *stream, resume=True)
    seen = headers(directory)
    assert {header.dictionary for header in seen} <= {b"", trained}
    assert seen[-1].dictionary == trained
    assert seen[-1].generation == 2
    assert job.summary["proof"] == f"the rows of step {last} are those that were published" or trimmed
    assert_replica_equals(job, "int8")


@pytest.mark.parametrize("codec", ["int8"])
def test_replicas_follow_a_fork(tmp_path: Path, codec: str) -> None:
    directory, stream = tmp_path / "run", (f"stages.stream.codec={codec}",)
    die_behind_a_checkpoint(directory, *stream)
    job = run_job(directory, OTHER, EVERY, CUTS, *stream, resume=True, accept=ACCEPT)
    assert job.summary["rewind"]["rows"] > 0
    assert_replica_equals(job, codec)
