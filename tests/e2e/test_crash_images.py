"""G5 at every call: whatever a crash leaves of a run's disk holds what was told is there, and the run goes on from it to the same end."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.e2e.crash_images import TIERS, Checked, Oracle, Reopened, record
from tests.files.journal import Image, crash_images

IN_CI = {"memory": 20, "disk": 50, "memory over disk": 30, "shards": 12}
"""Images that are gone on from; drawn by a fixed seed, while what the run did when differs from run to run."""
CRASHED_AGAIN = 12


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(tmp_path_factory.mktemp("images") / "whole")


Recorded = Callable[[str], list[Image]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """The images of one run with these tiers, the same for all tests."""
    return cache(lambda tiers: images_of(tmp_path_factory.mktemp("recorded"), tiers))


def images_of(directory: Path, tiers: str) -> list[Image]:
    """Of a run with checkpoints, compaction and publishing."""
    entries, job = record(directory, TIERS[tiers])
    store, kinds = job.summary["store"], {entry.kind for entry in entries}
    assert {"checkpoint", "cut", "rename", "sync", "remove"} <= kinds
    assert tiers in ("memory", "shards") or store["ssd"]["compacted_rows"] > 0
    images = list(crash_images(entries))
    assert {image.outcome for image in images} == {"keep", "drop", "tear", "reorder"}
    return images


def reopen(
    image: Image, directory: Path, oracle: Oracle, tiers: str, checked: Checked | None = None, *, go_on: bool
) -> None:
    """``checked``: parts that need not be looked at again."""
    parts = Checked().new_parts(image) if checked is None else checked.new_parts(image)
    if not parts and not go_on:
        return
    reopened = Reopened(image, directory)
    try:
        reopened.check(oracle, parts, checked)
        if go_on:
            reopened.go_on(oracle, TIERS[tiers])
    except BaseException as error:
        error.add_note(str(image))
        raise
    finally:
        reopened.close()
    shutil.rmtree(directory)


@pytest.mark.parametrize("tiers", TIERS)
def test_a_crash_anywhere_leaves_what_was_told_and_a_run_goes_on_from_it(
    memory_path: Path, recorded: Recorded, oracle: Oracle, tiers: str
) -> None:
    """Every image is reopened; some are gone on from."""
    images = recorded(tiers)
    checked, drawn = Checked(), set(random.Random(1).sample(range(len(images)), IN_CI[tiers]))
    for number, image in enumerate(images):
        reopen(image, memory_path / "image", oracle, tiers, checked, go_on=number in drawn)
    assert len(drawn) == IN_CI[tiers]


@pytest.mark.parametrize("tiers", TIERS)
def test_a_run_that_goes_on_may_crash_again(memory_path: Path, recorded: Recorded, oracle: Oracle, tiers: str) -> None:
    """While it opens what the crash left, proves, compacts and publishes."""
    rng, images = random.Random(2), recorded(tiers)
    first = rng.choice([image for image in images if image.noted.get("checkpoint")])
    first.write_to(memory_path / "again")
    entries, _ = record(memory_path / "again", TIERS[tiers], resume=True)
    again = list(crash_images(entries, before=first))
    assert again
    for image in rng.sample(again, CRASHED_AGAIN // len(TIERS)):
        reopen(image, memory_path / "image", oracle, tiers, go_on=True)


@pytest.mark.long
@pytest.mark.parametrize("tiers", TIERS)
def test_a_run_goes_on_from_every_image(memory_path: Path, recorded: Recorded, oracle: Oracle, tiers: str) -> None:
    for image in recorded(tiers):
        reopen(image, memory_path / "image", oracle, tiers, go_on=True)


@pytest.mark.long
@pytest.mark.parametrize("tiers", TIERS)
def test_every_crash_of_runs_that_go_on(memory_path: Path, recorded: Recorded, oracle: Oracle, tiers: str) -> None:
    """Of three such runs, all images are reopened."""
    images = recorded(tiers)
    for number, first in enumerate(random.Random().sample(images, 3)):
        first.write_to(memory_path / str(number))
        entries, _ = record(memory_path / str(number), TIERS[tiers], resume=True)
        checked = Checked()
        for image in crash_images(entries, before=first):
            reopen(image, memory_path / "image", oracle, tiers, checked, go_on=False)
