"""What can go wrong while a stream is made. Errors of the transport pass through as they are."""

from __future__ import annotations


class StreamError(Exception):
    """Base of all errors of this room."""


class PolicyError(StreamError, ValueError):
    """A text that names no moment to cut."""

    def __init__(self, text: object) -> None:
        super().__init__(
            f"{text!r} does not say when to cut; write a number of steps or a time above zero, "
            "such as '10 steps', '25ms' or '1.5s'"
        )


class SnapshotLost(StreamError):
    """A row source could not keep a snapshot until it was read. The cut is abandoned; its rows go into the next one."""


class BacklogLeft(StreamError):
    """``drain`` could not publish everything."""

    def __init__(self, rows: int, step: int, attempts: int) -> None:
        super().__init__(
            f"{rows} changed rows up to step {step} are not published: {attempts} cuts in a row lost their snapshot; "
            "drain when training has stopped, or give snapshots more room (store.shadow_bytes, store.spill_bytes)"
        )
