"""What can go wrong in the runtime. Every error says where, and what would have worked."""

from __future__ import annotations


class FlowError(Exception):
    """Base of all errors of the runtime."""


class GraphError(FlowError):
    """The graph of stages cannot run; found before anything starts."""


class EndOfChannel(FlowError):
    """The channel was closed by its sender and holds no more items."""


class ClosedChannel(FlowError):
    """Sending into a channel that was closed or aborted."""


class StageError(FlowError):
    """A stage failed. ``stage`` is its name in the config; the cause is ``__cause__``."""

    def __init__(self, stage: str, what: str) -> None:
        super().__init__(f"stage {stage!r}: {what}")
        self.stage = stage
