"""Checkpoints of whole runs: incremental, copied, verified, and gone on from with other tiers."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.files import RealFiles
from pipeline.flow import StageError
from pipeline.rowlog import CheckpointReader, read_catalog
from pipeline.session.errors import CopyTaken
from pipeline.session.resume import Resume
from tests.e2e.command import here
from tests.e2e.jobs import RAGGED, Job, assert_same_bits, run_job
from tests.e2e.test_resume import EVERY, PACE_S, Killed

DISK = ("store.ssd.segment_bytes=8192", "store.ssd.extent_bytes=4096", "store.l1_rows=150")
CACHE = (*DISK, "store.dram_bytes=40000")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return run_job(tmp_path_factory.mktemp("checkpoints") / "whole", RAGGED)


def kept(directory: Path) -> list[CheckpointReader]:
    checkpoints = str(directory / "checkpoints")
    return [CheckpointReader(RealFiles(), f"{checkpoints}/{name}") for name in read_catalog(RealFiles(), checkpoints)]


@pytest.mark.parametrize("tiers", [(), DISK, CACHE], ids=["memory", "disk", "memory over disk"])
def test_each_kept_checkpoint_holds_the_rows_of_its_step(tmp_path: Path, tiers: tuple[str, ...]) -> None:
    """As the run holds them that ends there."""
    job = run_job(tmp_path / "run", RAGGED, "checkpoint.every='9 steps'", "checkpoint.keep=3", *tiers)
    found = kept(job.dir)
    assert len(found) == 3
    assert [one.manifest.step for one in found] == sorted((one.manifest.step for one in found), reverse=True)
    for reader in found[1:]:
        step = reader.manifest.step
        other = kept(run_job(tmp_path / str(step), RAGGED, f"run.steps={step}").dir)[0]
        for spec in reader.tables:
            ours, theirs = list(reader.rows(spec.name)), list(other.rows(spec.name))
            assert [chunk.rows_nb.tobytes() for chunk in ours] == [chunk.rows_nb.tobytes() for chunk in theirs]
            assert [chunk.versions_n.tolist() for chunk in ours] == [chunk.versions_n.tolist() for chunk in theirs]
        assert reader.blob("dense.npz") == other.blob("dense.npz")


def test_only_files_that_a_kept_checkpoint_names_stay(tmp_path: Path) -> None:
    job = run_job(tmp_path / "run", RAGGED, "checkpoint.every='5 steps'", "checkpoint.keep=2")
    named = {segment.path for one in kept(job.dir) for segment in one.saved.all_segments()}
    rows = job.dir / "checkpoints" / "rows"
    assert named <= {str(path) for path in rows.glob("*.seg")}
    run_job(tmp_path / "run", RAGGED, resume=True)
    named = {segment.path for one in kept(job.dir) for segment in one.saved.all_segments()}
    assert len(named) < 40


LAYOUTS = {"memory": (), "disk": DISK, "cache": CACHE, "elsewhere": (*DISK, "store.ssd.path={}/ssd-b")}


@pytest.mark.parametrize(
    "order", [("memory", "disk", "memory"), ("disk", "elsewhere", "cache", "disk"), ("cache", "memory", "cache")]
)
def test_a_resume_with_other_tiers_goes_on_to_the_same_bits(tmp_path: Path, whole: Job, order: tuple[str, ...]) -> None:
    directory, job = tmp_path / "run", None
    for number, layout in enumerate(order):
        tiers = [word.format(tmp_path) for word in LAYOUTS[layout]]
        last = number == len(order) - 1
        on_step = None if last else die_behind_a_new_checkpoint(directory)
        try:
            job = run_job(directory, RAGGED, EVERY, *tiers, on_step=on_step, resume=number > 0)
        except StageError:
            assert not last
    assert job is not None
    assert_same_bits(whole, job)
    assert here("verify", directory).code == 0
    named = {segment.path for one in kept(directory) for segment in one.saved.all_segments()}
    assert all(Path(path).exists() for path in named)


@pytest.mark.parametrize("tiers", [(), DISK, CACHE], ids=["memory", "disk", "memory over disk"])
def test_a_run_directory_may_be_moved(tmp_path: Path, whole: Job, tiers: tuple[str, ...]) -> None:
    with pytest.raises(StageError):
        run_job(tmp_path / "run", RAGGED, EVERY, *tiers, on_step=die_behind_a_new_checkpoint(tmp_path / "run"))
    moved = tmp_path / "another" / "place"
    moved.parent.mkdir()
    (tmp_path / "run").rename(moved)
    assert here("verify", moved).code == 0
    job = run_job(moved, RAGGED, EVERY, *tiers, resume=True)
    assert job.summary["resumed_from"] > 0
    assert_same_bits(whole, job)
    assert not (tmp_path / "run").exists()


def die_behind_a_new_checkpoint(directory: Path) -> Callable[[int], None]:
    began = Resume.newest(directory).step if directory.exists() else 0

    def die(step: int) -> None:
        time.sleep(PACE_S)
        if step % 4 == 1 and Resume.newest(directory).step > began:
            raise Killed

    return die


def test_a_copy_is_a_run_of_its_own(tmp_path: Path, whole: Job) -> None:
    copy = tmp_path / "copy"
    with pytest.raises(StageError):
        run_job(
            tmp_path / "run",
            RAGGED,
            EVERY,
            *DISK,
            f"checkpoint.copy_to={copy}",
            on_step=die_behind_a_new_checkpoint(copy),
        )
    found = kept(copy)
    assert [one.manifest.step for one in found] == [one.manifest.step for one in kept(tmp_path / "run")]
    assert all(segment[0].startswith("../rows/") for segment in segments_of(found[0]))
    named = {Path(segment.path).name for one in found for segment in one.saved.all_segments()}
    assert {path.name for path in (copy / "checkpoints" / "rows").glob("*.seg")} == named
    shutil.rmtree(tmp_path / "run")
    assert here("verify", copy).code == 0
    job = run_job(copy, RAGGED, resume=True)
    assert job.summary["resumed_from"] == found[0].manifest.step
    assert_same_bits(whole, job)


def segments_of(reader: CheckpointReader) -> list[list[str]]:
    manifest = json.loads(Path(reader.path, "manifest.json").read_text())
    return [segment for table in manifest["tables"].values() for segment in table["segments"]]


def test_a_directory_that_cannot_take_copies_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    other = run_job(tmp_path / "other", RAGGED, "run.steps=3")
    for target, why in (
        (tmp_path / "full", "no run wrote"),
        (other.dir, "holds the run"),
        (tmp_path / "run" / "c", "lies in"),
    ):
        with pytest.raises(CopyTaken, match=why):
            run_job(tmp_path / "run", RAGGED, f"checkpoint.copy_to={target}")
        shutil.rmtree(tmp_path / "run")


def test_verify_finds_a_flipped_bit_and_names_its_place(tmp_path: Path) -> None:
    job = run_job(tmp_path / "run", RAGGED, EVERY, *DISK)
    outcome = here("verify", job.dir)
    assert outcome.code == 0, outcome.text
    assert "everything is as it was written" in outcome.out
    segment = max((job.dir / "ssd").glob("*.seg"), key=lambda path: path.stat().st_size)
    frames = max((job.dir / "stream").glob("*"), key=lambda path: path.stat().st_size)
    blob = Path(kept(job.dir)[0].path, "blob-0000")
    for path, offset in ((segment, 4100), (blob, 3), (frames, frames.stat().st_size // 2)):
        data = bytearray(path.read_bytes())
        data[offset] ^= 4
        path.write_bytes(data)
        outcome = here("verify", job.dir)
        assert outcome.code == 1, outcome.text
        assert "damaged: " in outcome.out
        assert str(path if path is not frames else frames.parent) in outcome.out
        data[offset] ^= 4
        path.write_bytes(data)
    assert here("verify", job.dir).code == 0
