"""Each sabotage of going on with a stream is noticed by the test of what it breaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.flow import StageError
from pipeline.replica import ReplicaError
from tests.e2e import test_fork as forks
from tests.e2e import test_resume as resumes
from tests.sabotage.caught import Sabotage, assert_caught
from tests.sabotage.forks import (
    begin_a_fork_without_a_rewind,
    forget_a_fork_that_died,
    leave_out_what_was_trained_while_the_stream_was_off,
    write_a_checkpoint_before_the_proof,
)


def fork(path: Path) -> None:
    forks.test_replicas_go_back_with_a_fork_and_follow_it(path, (), False)


def die_as_a_fork(path: Path) -> None:
    forks.test_a_fork_that_died_before_it_was_seen_is_seen_when_it_is_resumed(path, forks.die_before_the_header)


def diverge(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        resumes.test_no_checkpoint_behind_what_was_published_is_written_before_the_proof(path, patch)


NOTICED: dict[Sabotage, Callable[[Path], None]] = {
    begin_a_fork_without_a_rewind: fork,
    forget_a_fork_that_died: die_as_a_fork,
    leave_out_what_was_trained_while_the_stream_was_off: forks.test_a_fork_whose_stream_was_off_is_seen_when_it_is_on_again,
    write_a_checkpoint_before_the_proof: diverge,
}


@pytest.mark.parametrize("sabotage", NOTICED, ids=lambda sabotage: sabotage.__name__)
def test_a_sabotage_is_caught(tmp_path: Path, sabotage: Sabotage) -> None:
    assert_caught(sabotage, lambda: NOTICED[sabotage](tmp_path), StageError, ReplicaError, name=sabotage.__name__)
