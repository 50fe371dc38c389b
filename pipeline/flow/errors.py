"""What can go wrong in the runtime. Every error says where, and what would have worked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class FlowError(Exception):
    """Base of all errors of the runtime. ``exit_code`` is what the command line returns."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a graph.

    ``path`` is the key path in the config, as in ``stages.prefetch.lookahead``.
    """

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" if self.path else self.what


class GraphError(FlowError):
    """The graph of stages cannot run; found before anything starts.

    ``problems`` holds all that was found, with key paths.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[Problem]) -> None:
        self.problems = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class EndOfChannel(FlowError):
    """The channel was closed by its sender and holds no more items."""


class ClosedChannel(FlowError):
    """Sending into a channel that was closed or aborted, or receiving from one that was aborted."""


class StageError(FlowError):
    """A stage failed. ``stage`` is its name in the config; the cause is ``__cause__``."""

    def __init__(self, stage: str, what: str) -> None:
        super().__init__(f"stage {stage!r}: {what}")
        self.stage = stage


class Aborted(FlowError):
    """The run was told to stop at once: a second signal, or a drain that took too long.

    Items in flight were dropped.
    """


class LaneError(FlowError):
    """A lane cannot run the call: it was closed, its start-up failed, or it is stuck in a call. Says which lane."""

    def __init__(self, lane: str, what: str) -> None:
        super().__init__(f"lane {lane!r}: {what}")
        self.lane = lane
