"""Best effort: its options, and the streamer that keeps to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, model_validator

from cuda.plan import SlotPlan
from pipeline.flow import StageOptions
from pipeline.store import Store
from pipeline.stream import CutPolicy, Duration, GroupedIds, RowStreamer, StreamIdentity, seconds_of, streamer
from pipeline.stream.best_effort import BestEffortStreamer
from pipeline.stream.budget import Effort
from pipeline.stream.scored import ScoredIds

LEAST_BUDGET = 1000
MAX_AGE = "5s"
OUTSIDE_G3 = (
    "stages.stream.freshness is best_effort: a replica is at no step's end (G3 does not hold), until the run has ended; each row alone is "
    "that of some step, at most {max_age} old as far as the link carries it"
)


def _per_second(value: object) -> object:
    return value.strip().removesuffix("/s").strip() if isinstance(value, str) else value


def _is_enough(budget: ByteSize) -> ByteSize:
    if budget < LEAST_BUDGET:
        raise ValueError(
            f"{int(budget)} bytes a second do not carry the frames of a few rows; give at least {LEAST_BUDGET}"
        )
    return budget


BytesPerSecond = Annotated[ByteSize, BeforeValidator(_per_second), AfterValidator(_is_enough)]
"""``"2MB/s"``, or a number."""


class EffortOptions(StageOptions):
    freshness: Literal["exact", "best_effort"] = Field(
        "exact",
        description="exact: each cut carries all that changed, a replica is the trainer at a step's end; best_effort: within `budget`, "
        "the rows that changed most go first, and a replica is at no step's end until the run has ended",
    )
    budget: BytesPerSecond | None = Field(
        None, description='best effort: what the link carries, all shards together, as "2MB/s" or bytes per second'
    )
    max_age: Duration | None = Field(
        None, description=f"best effort: how long a changed row waits at most, whatever the budget; not set: {MAX_AGE}"
    )

    @model_validator(mode="after")
    def _go_together(self) -> EffortOptions:
        best_effort = self.freshness == "best_effort"
        if best_effort and self.budget is None:
            raise ValueError("freshness: best_effort needs a budget, in bytes per second, as budget: 2MB/s")
        for name in ("budget", "max_age"):
            if not best_effort and getattr(self, name) is not None:
                raise ValueError(f"{name} is for freshness: best_effort; an exact stream sends all that changed")
        every = CutPolicy.parse(getattr(self, "every", "25ms")).seconds
        if best_effort and every is not None and 4 * every > self.max_age_s:
            raise ValueError(
                f"max_age is {self.max_age_s:g} s and cuts come {every:g} s apart (every): a row would be older before it can be sent; "
                f"give a max_age of {4 * every:g} s or more, or more cuts"
            )
        return self

    @property
    def max_age_s(self) -> float:
        return seconds_of(self.max_age or MAX_AGE)

    @property
    def patience_s(self) -> float | None:
        """The longest time between two cuts while rows wait; None: there are no such rows."""
        return self.max_age_s / 4 if self.freshness == "best_effort" else None

    def notes(self) -> Iterator[str]:
        """What ``check`` says of the options besides that they can run."""
        if self.freshness == "best_effort":
            yield OUTSIDE_G3.format(max_age=self.max_age or MAX_AGE)

    def make_streamer(
        self, source: Any, transports: Any, identity: StreamIdentity, options: Any
    ) -> streamer.RowStreamer:
        """The arguments of ``RowStreamer``."""
        if self.freshness == "exact":
            return RowStreamer(source, transports, identity, options)
        assert self.budget is not None
        effort = Effort(float(self.budget), self.max_age_s)
        return BestEffortStreamer(source, transports, identity, options, effort=effort)


def told_ids(
    store: Store, tables: tuple[str, ...], selected: tuple[str, ...] | None, plan: SlotPlan, step: int
) -> GroupedIds:
    """What a step tells a stream of ``selected`` tables (None: all): its ids, and how far it moved their rows where the store was asked."""
    unique = plan.unique
    if not store.changes.wanted:
        return GroupedIds(tables, unique.ids_u, unique.table_start_t, selected)
    changes_u = store.changes.of(plan)
    return ScoredIds(tables, unique.ids_u, unique.table_start_t, selected, changes_u, step)


def tell(made: streamer.RowStreamer, report: dict[str, Any]) -> None:
    """What waits, for progress and summary. On any thread."""
    if isinstance(made, BestEffortStreamer):
        report["best_effort"] = {
            "unsent_rows": made.waits.rows,
            "oldest_s": round(made.age_s, 3),
            "longest_wait_s": round(made.longest_wait_s, 3),
        }
