"""Retries, skips and dead letters of stages without effects."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.flow import Lanes, Many, Stage, StageError, run_loop
from pipeline.flow.dead_letters import MOST_ITEM_CHARS, DeadLetters
from tests.flow.samples import Inline, OnLane, Run, graph_of, variant


class Unlucky(ValueError):
    """What the stages of these tests raise."""


def stage(on_lane: bool, fails: dict[int, int]) -> tuple[type[Stage], Counter[int]]:
    """A stage without effects that fails ``fails[item]`` times at an item before it gives it back."""
    attempts: Counter[int] = Counter()

    def attempt(item: int) -> int:
        attempts[item] += 1
        if attempts[item] <= fails.get(item, 0):
            raise Unlucky(f"item {item}")
        return item

    async def process(_self: Stage, item: int) -> int:
        return attempt(item)

    def work(_self: Stage, item: int) -> int:
        return attempt(item)

    if on_lane:
        return variant(OnLane, effects="none", work=work), attempts
    return variant(Inline, effects="none", process=process), attempts


MODES = pytest.mark.parametrize(("on_lane", "concurrency"), [(False, 1), (True, 1), (False, 3), (True, 3)], ids=str)


def run_with(use: type[Stage], count: int = 10, **options: Any) -> Run:
    return Run(graph_of({"numbers": {"count": count}, "it": options, "keep": {}}, it=use), lanes={"a": 3})


@MODES
def test_a_failed_item_is_tried_again_and_the_retries_are_counted(on_lane: bool, concurrency: int) -> None:
    use, attempts = stage(on_lane, {3: 2, 7: 1})
    run = run_with(use, retries=2, concurrency=concurrency)
    report = run.go()
    assert run.kept == list(range(1, 11))
    assert (attempts[3], attempts[7], attempts[1]) == (3, 2, 1)
    assert report.stages["it"].retries == 3
    assert report.skipped == 0


@MODES
def test_used_up_retries_fail_the_run_with_the_cause(on_lane: bool, concurrency: int) -> None:
    use, attempts = stage(on_lane, {3: 99})
    with pytest.raises(StageError, match="stage 'it': Unlucky: item 3") as caught:
        run_with(use, retries=2, concurrency=concurrency).go()
    assert attempts[3] == 3
    assert isinstance(caught.value.__cause__, Unlucky)
    assert not hasattr(caught.value, "__notes__")


@MODES
def test_skipped_items_are_counted_apart_and_the_others_keep_their_order(on_lane: bool, concurrency: int) -> None:
    use, _ = stage(on_lane, {3: 99, 4: 99})
    run = run_with(use, on_error="skip", max_skipped=2, concurrency=concurrency)
    report = run.go()
    assert run.kept == [1, 2, 5, 6, 7, 8, 9, 10]
    figures = report.stages["it"]
    assert (figures.items_in, figures.items_out, figures.skipped, report.skipped) == (10, 8, 2, 2)


@pytest.mark.parametrize("most", [0, 1])
def test_more_skips_than_allowed_fail_the_run(most: int) -> None:
    use, _ = stage(False, dict.fromkeys(range(1, most + 2), 99))
    with pytest.raises(StageError, match=f"skipped {most + 1} items, and max_skipped is {most}; the last: Unlucky"):
        run_with(use, on_error="skip", max_skipped=most).go()


@MODES
def test_dead_letters_are_written_one_json_line_each(tmp_path: Path, on_lane: bool, concurrency: int) -> None:
    path = tmp_path / "dead.jsonl"
    use, _ = stage(on_lane, {3: 99, 8: 99})
    options: dict[str, Any] = {"on_error": "dead_letter", "dead_letter": str(path), "max_skipped": 5}
    run = run_with(use, concurrency=concurrency, **options)
    report = run.go()
    letters = sorted(
        (json.loads(line) for line in path.read_text().splitlines()), key=lambda letter: int(letter["item"])
    )
    assert letters == [
        {"stage": "it", "item": "3", "error": "Unlucky: item 3"},
        {"stage": "it", "item": "8", "error": "Unlucky: item 8"},
    ]
    assert report.skipped == 2
    assert len(run.kept) == 8


def test_a_dead_letter_file_that_cannot_be_opened_fails_the_run(tmp_path: Path) -> None:
    use, _ = stage(False, {3: 99})
    with pytest.raises(StageError, match="stage 'it': FileNotFoundError"):
        run_with(use, on_error="dead_letter", dead_letter=str(tmp_path / "no" / "such"), max_skipped=5).go()


def test_long_items_are_cut_and_a_full_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"

    async def main(lanes: Lanes) -> None:
        letters = DeadLetters(str(path), lanes.get("files"), most_bytes=10_000)
        await letters.write("it", "x" * 100_000, Unlucky("long"))
        await letters.write("it", 1, Unlucky("short"))
        with pytest.raises(StageError, match=r"dead\.jsonl holds \d+ bytes; a dead-letter file ends at 10000"):
            await letters.write("it", "x" * 100_000, Unlucky("y" * 100_000))
        await letters.close()

    with Lanes() as lanes:
        run_loop(lambda: main(lanes))
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert len(first["item"]) == MOST_ITEM_CHARS
    assert first["cut"] == "the item's text has 100002 characters"
    assert second["item"] == "1"


def test_a_stage_without_effects_may_return_many() -> None:
    async def process(_self: Stage, item: int) -> Many:
        return Many([item, item])

    run = run_with(variant(Inline, effects="none", process=process), 4, concurrency=2)
    report = run.go()
    assert run.kept == [1, 1, 2, 2, 3, 3, 4, 4]
    assert report.stages["it"].items_out == 8
