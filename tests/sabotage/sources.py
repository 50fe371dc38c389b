"""Small sabotages of sources and negatives: each removes one protection, and a short scenario has to catch every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from stages.items import RawBatch
from stages.negatives import Negatives
from stages.negatives.kernels import draw_from_window
from stages.rebatch import Rebatcher
from stages.sources import arrange
from stages.sources.arrange import Arranger
from stages.sources.blocks import Arranged, Block
from stages.sources.source import BatchSource
from tests.stages.driving import bags_of, drive, plain, run_stage
from tests.stages.sources.csv_logs import csv_source, write


def check_sources(directory: Path) -> None:
    """A shuffled log with a bad line, whole and resumed behind every batch; then its negatives, in two batch sizes."""
    lines = [f"{i},{i % 7},0,1" for i in range(23)]
    write(directory / "a.csv", [*lines[:9], "bad,1,0,1", *lines[9:]])
    write(directory / "b.csv.gz", [f"{i},{i % 5},0,1" for i in range(23, 40)])
    options = {"shuffle": 6, "epochs": 2, "on_error": "skip", "max_skipped": 2, "batch_size": 6}
    make = csv_source(directory / "*.csv*", **options)
    whole = drive(make)
    expected = [plain(batch) for batch in whole.batches]
    assert sorted(bags_of(whole.batches, "user")) == sorted([[i] for i in range(40)] * 2)
    assert whole.counts == {"skipped": 2}
    for at, state in enumerate(whole.states):
        rest = drive(make, state)
        assert [plain(batch) for batch in rest.batches] == expected[at + 1 :]
    check_negatives(whole.batches)


def check_negatives(batches: list[RawBatch]) -> None:
    def make(**options: Any) -> Callable[[], Negatives]:
        return lambda: Negatives(Negatives.Options.model_validate({"item": "item", "window": 30, **options}))

    def rows(found: list[RawBatch]) -> list[Any]:
        labels = np.concatenate([batch.labels_b for batch in found]).tolist()
        return list(zip(bags_of(found, "user"), bags_of(found, "item"), labels, strict=True))

    expected = rows(run_stage(make(), batches)[0])
    positives = {(tuple(user), tuple(item)) for user, item, label in expected if label == 1}
    drawn = {(tuple(user), tuple(item)) for user, item, label in expected if label == 0}
    assert drawn
    assert not positives & drawn
    assert rows(run_stage(make(batch_size=7), batches)[0]) == expected
    begin, state, _ = run_stage(make(batch_size=7), batches[:3])
    full = [batch for batch in begin if batch.num_samples == 7]
    assert rows(full + run_stage(make(batch_size=7), batches[3:], state)[0]) == expected


@contextmanager
def skip_the_last_batch() -> Iterator[None]:
    def finish(self: Arranger) -> list[Arranged]:
        self._close_window()
        return self._batches()

    with patch.object(Arranger, "finish", finish):
        yield


@contextmanager
def show_the_cursor_of_what_was_read_ahead() -> Iterator[None]:
    """The state is the reader's, not that of the last batch yielded."""
    passed, send = BatchSource._pass, BatchSource._send

    async def ahead(self: BatchSource, channel: Any, batches: Any) -> None:
        for arranged in batches:
            self._cursor = arranged.cursor
        await send(self, channel, batches)

    def keep(self: BatchSource, cursor: Any) -> None:
        current = self._cursor
        passed(self, cursor)
        self._cursor = current

    with patch.object(BatchSource, "_send", ahead), patch.object(BatchSource, "_pass", keep):
        yield


@contextmanager
def shuffle_by_no_seed_at_all() -> Iterator[None]:
    rng = np.random.default_rng()
    with patch.object(arrange, "permutation", lambda _key, count: rng.permutation(count)):
        yield


@contextmanager
def forget_where_in_the_window_the_cursor_stands() -> Iterator[None]:
    begin = Arranger.__init__

    def forgetful(self: Arranger, plan: Any, cursor: Any) -> None:
        begin(self, plan, replace(cursor, taken=0))

    with patch.object(Arranger, "__init__", forgetful):
        yield


@contextmanager
def leave_bad_lines_uncounted() -> Iterator[None]:
    add = Arranger.add

    def silent(self: Arranger, block: Block) -> list[Arranged]:
        return add(self, replace(block, skipped_s=block.skipped_s[:0]))

    with patch.object(Arranger, "add", silent):
        yield


@contextmanager
def forget_the_samples_that_wait_for_a_full_batch() -> Iterator[None]:
    state = Rebatcher.state
    with patch.object(Rebatcher, "state", lambda self: {**state(self), "rest": None}):
        yield


@contextmanager
def let_a_positive_draw_itself() -> Iterator[None]:
    """The drawers are told that nobody has items of their own."""
    draw: Any = draw_from_window

    def carefree(*arguments: Any) -> None:
        *first, offsets_b, wanted_b, picks_bk = arguments
        draw(*first, np.zeros_like(offsets_b), wanted_b, picks_bk)

    with patch("stages.negatives.candidates.draw_from_window", carefree):
        yield


SABOTAGES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    sabotage.__name__: sabotage
    for sabotage in (
        skip_the_last_batch,
        show_the_cursor_of_what_was_read_ahead,
        shuffle_by_no_seed_at_all,
        forget_where_in_the_window_the_cursor_stands,
        leave_bad_lines_uncounted,
        forget_the_samples_that_wait_for_a_full_batch,
        let_a_positive_draw_itself,
    )
}
