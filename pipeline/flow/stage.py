"""The stage contract: what a user's stage is, and what the runtime gives it.

Rules.

1. A stage is a class. Its ``Options`` validate its part of the config; ``consumes`` and ``produces`` are the types of
   its items; ``needs`` names the resources it is given when it opens.
2. A stage does its work in one of two ways. ``process`` is a coroutine on the event loop: it waits and moves items,
   and never touches rows. ``work`` is a plain method that runs on the named thread ``lane``; neighbours on the same
   lane with ordered effects run as one visit to it.
3. One item in, one item out, unless ``Many`` is returned. Order is kept, also with ``concurrency`` above one.
4. ``effects = "ordered"`` (the default) says that the order of items matters and that an item cannot be tried again.
5. A stage that remembers something between items returns it from ``state`` and takes it back in ``restore``: plain
   values only (what msgpack can carry).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict


class Many(tuple[Any, ...]):
    """What ``process``, ``work`` or ``drain`` returns to emit any number of items, none included: ``Many()``."""

    __slots__ = ()


class StageOptions(BaseModel):
    """Base of every stage's options: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Lane(Protocol):
    """A named thread, or a few: where blocking work runs."""

    name: str

    async def run(self, call: Callable[..., Any], *args: Any) -> Any:
        """Run ``call(*args)`` on the lane's thread and return its result."""


class Counters(Protocol):
    """Named counts of one stage; they end in the report. Usable from any thread.

    ``waited_s`` is known to the runtime: seconds spent waiting for other stages inside ``process``; no service time.
    """

    def add(self, name: str, amount: int | float = 1) -> None: ...


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage is given when it opens."""

    name: str
    """The stage's key in the config."""
    resources: Mapping[str, Any]
    """The resources named in ``needs``."""
    lane: Callable[[str], Lane]
    """Finds (or starts) a lane by name."""
    counters: Counters
    spawn: Callable[[Callable[[], Awaitable[None]], str], None]
    """Start a background task, named, whose parent is the run: an error in it stops the run and names the stage."""
    stopping: Callable[[], bool] = lambda: False
    """Whether the run was asked to stop: for an ``open`` that waits for somebody."""


@dataclass(slots=True)
class Marker:
    """Travels between two items and stops at nothing: each stage's state is taken as it passes.

    ``reason`` says why it was sent ("checkpoint", "interrupt", "limit", "end"). When it has left the last stage, ``states``
    maps the name of each stage to its state, and ``attachments`` holds what stages pinned to it (the store's
    snapshot, for one).
    """

    reason: str
    number: int
    states: dict[str, Any] = field(default_factory=dict)
    attachments: dict[str, Any] = field(default_factory=dict)


class Stage:
    """Base class of all stages but sources."""

    Options: ClassVar[type[StageOptions]] = StageOptions
    consumes: ClassVar[type] = object
    produces: ClassVar[type] = object
    needs: ClassVar[Mapping[str, type]] = {}
    effects: ClassVar[Literal["none", "ordered"]] = "ordered"
    lane: ClassVar[str | None] = None

    def __init__(self, options: Any) -> None:
        self.options = options

    async def open(self, context: StageContext) -> None:
        """Take resources. Runs before the first item of any stage."""

    async def ready(self, item: Any) -> None:
        """Wait, on the loop, until ``item`` may be worked on. Awaited before each ``process`` or visit to the lane.

        Time spent here is not service time. A stage that overrides it begins a visit of its own.
        """

    @classmethod
    def waits_in(cls, visit: tuple[type[Stage], ...]) -> bool:  # noqa: ARG003 - for those who override it
        """Whether ``ready`` is to be awaited when the stages ``visit``, this one first, are worked through together."""
        return cls.ready is not Stage.ready

    async def process(self, item: Any) -> Any:
        """Turn one item into one item, or into ``Many``."""
        raise NotImplementedError(f"{type(self).__name__} has neither process nor a lane")

    def work(self, item: Any) -> Any:
        """The same, on the stage's lane, where blocking is allowed."""
        raise NotImplementedError(f"{type(self).__name__} names lane {self.lane!r} but has no work method")

    async def mark(self, marker: Marker) -> None:
        """A marker passes, all items before it having been processed. May pin attachments to it."""

    async def drain(self) -> Any:
        """End of input: emit what is left (``Many``). Not called when the run is interrupted."""
        return Many()

    async def close(self, error: BaseException | None) -> None:
        """Give back resources; always called, shielded and bounded in time.

        ``error`` is what ended the run, if anything.
        """

    def state(self) -> Any:
        """What a resumed run needs to go on, or None."""
        return None

    def restore(self, state: Any) -> None:
        """Take back what ``state`` returned, after ``open`` and before the first item."""

    def waiting(self) -> Sequence[Any]:
        """Items of an earlier run that this stage took and did not work on. Asked once, after ``restore``.

        They are put in front of its channel, whatever its bounds: it gets them again before anything else.
        """
        return ()


class Source(Stage):
    """Base class of sources: the first stage of a graph. It has no input.

    ``state`` returns the cursor *behind the last item that* ``items`` *has yielded*, whatever was read ahead.
    """

    def items(self) -> AsyncIterator[Any]:
        """Yield items until the input ends. Cancelled or closed when the run is."""
        raise NotImplementedError(f"{type(self).__name__} has no items method")
