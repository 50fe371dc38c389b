"""Small ways to break how a run that is resumed, as a fork or not, goes on with its stream. ``test_forks.py`` says which test notices."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import PropertyMock, patch

from pipeline.flow import Marker
from pipeline.session import rundir
from pipeline.session.resume import Resume
from stages.stream import FINAL_REASONS, Stream
from stages.stream_resume import StreamResume


def begin_a_fork_without_a_rewind() -> AbstractContextManager[Any]:
    return patch.object(StreamResume, "rewinds", PropertyMock(return_value=False))


def forget_a_fork_that_died() -> AbstractContextManager[Any]:
    forks = rundir._forks
    return patch.object(rundir, "_forks", lambda generations: forks(generations[-1:]))


def leave_out_what_was_trained_while_the_stream_was_off() -> AbstractContextManager[Any]:
    return patch.object(Resume, "changed_after", lambda _self, _step: {})


def write_a_checkpoint_before_the_proof() -> AbstractContextManager[Any]:
    mark = Stream.mark

    async def mark_at_once(self: Stream, marker: Marker) -> None:
        if marker.reason in FINAL_REASONS:
            await mark(self, marker)

    return patch.object(Stream, "mark", mark_at_once)
