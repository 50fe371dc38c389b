"""G5 for `import --resume`: whatever a crash leaves of the disk behind any of its calls is the run before it or behind it, and goes on."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load
from pipeline.session import environment
from pipeline.session.checkpoints import Checkpoints
from pipeline.session.commands import look_for_resume
from pipeline.session.disk import Disk
from pipeline.session.importing import imports_of
from pipeline.session.importing_into import import_into
from pipeline.session.inspect_rows import newest_checkpoint
from pipeline.session.plan import make_plan
from pipeline.session.settings import Settings
from tests.e2e.command import here
from tests.e2e.test_import import assert_replica_is_the_trainer, saved
from tests.e2e.test_import_into import AT, begun
from tests.files.journal import Entry, Image, JournalFiles, crash_images
from tests.modules.loops import assert_same_tables, tables_of

GONE_ON_FROM = 5
SMALL = ("store.ssd.segment_bytes=8192", "store.ssd.extent_bytes=4096")


def image_of(directory: Path) -> Image:
    """What the disk holds of the run, nothing of it at risk."""
    paths = sorted(path for path in (directory / "run").rglob("*") if not path.name.endswith("lock"))
    files = {str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes() for path in paths}
    return Image(0, Entry("begin"), "keep", {}, {"run": None, **files}, has_holes=False)


def record(config: Path, rows: Path, *words: str) -> list[Entry]:
    """The calls of an import into the run of ``config``, and when it was told that the rows are durable."""
    files, write = JournalFiles(config.parent), Checkpoints.write

    def write_and_note(self: Checkpoints, marker: Any) -> Path | None:
        path = write(self, marker)
        files.note("imported", marker.attachments["step"])
        return path

    plan = make_plan(load([str(config)], words, Settings))
    described = {"environment": environment.record(plan.settings.run.threads), "config": plan.tree}
    imports, look = imports_of(plan, ["user"], [rows], False), partial(look_for_resume, plan, described, ())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoints, "write", write_and_note)
        step = import_into(plan, imports, described, look, say=lambda _: None, disk=Disk(files))
    assert step == AT + 1
    return files.entries


def on_disk(image: Image, directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    image.write_to(directory)
    return directory / "run"


def ends(config: Path, run: Path, words: tuple[str, ...], directory: Path) -> Any:
    """The tables of ``run`` when it has gone on to its end, and a replica has them."""
    outcome = here("run", config, "--resume", f"run.dir={run}", *words)
    assert outcome.code == 0, outcome.text
    assert_replica_is_the_trainer(run, directory)
    return tables_of(run)


@pytest.mark.parametrize("words", [(), SMALL], ids=["memory", "disk"])
def test_a_crash_anywhere_leaves_the_run_before_the_import_or_behind_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    config, rows = begun(tmp_path / "job", disk=bool(words)), saved(tmp_path)
    run, before = config.parent / "run", image_of(config.parent)
    states = {AT: tables_of(run)}
    images = list(crash_images(record(config, rows, *words), before=before))
    states[AT + 1] = tables_of(run)
    assert {image.outcome for image in images} == {"keep", "drop", "tear", "reorder"}
    whole = {
        AT: ends(config, on_disk(before, tmp_path / "before"), words, tmp_path),
        AT + 1: ends(config, run, words, tmp_path),
    }
    drawn, steps = set(random.Random(3).sample(range(len(images)), GONE_ON_FROM)), set()
    for number, (image, found) in enumerate(zip(images, reopened(images, tmp_path / "image"), strict=True)):
        step = newest_checkpoint(found).manifest.step
        steps.add(step)
        assert step >= image.noted.get("imported", AT), f"told as imported, and lost: {image}"
        assert_same_tables(tables_of(found), states[step])
        if number in drawn:
            assert_same_tables(ends(config, found, words, tmp_path), whole[step])
    assert steps == {AT, AT + 1}


def reopened(images: list[Image], directory: Path) -> Iterator[Path]:
    return (on_disk(image, directory) for image in images)
