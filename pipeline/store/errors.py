"""What can go wrong in the store. Errors are built from facts: who catches one reads its attributes."""

from __future__ import annotations

from collections.abc import Mapping


class StoreError(Exception):
    """Base of all errors of the store."""


class L1TooSmall(StoreError):
    """One batch has more distinct rows than L1 has slots. Nothing was pinned."""

    def __init__(self, need: int, l1_rows: int, step: int) -> None:
        super().__init__(
            f"step {step} needs {need} distinct rows at once and L1 holds {l1_rows}: "
            f"set store.l1_rows to at least {need}, or make batches smaller"
        )
        self.need, self.l1_rows, self.step = need, l1_rows, step


class OutOfStep(StoreError):
    """A step came out of order."""

    def __init__(self, what: str, step: int, expected: str) -> None:
        super().__init__(f"{what} of step {step} is out of order: expected {expected}")
        self.step = step


class BadGradients(StoreError):
    """Rows got a gradient with a NaN or an infinity. The step is half written: the store gives no step's end any more."""

    def __init__(self, step: int, rows: Mapping[str, int]) -> None:
        found = ", ".join(f"{count} of table {table!r}" for table, count in rows.items())
        super().__init__(
            f"step {step}: the gradient of rows has a NaN or an infinity: {found}. A lower learning rate or optimizer.max_gradient may "
            "keep it finite; store.bad_gradients: skip leaves such rows as they are and counts them. The run can be resumed from its "
            "newest checkpoint"
        )
        self.step, self.rows = step, dict(rows)


class BrokenFence(StoreError):
    """A step failed half way: its rows are neither those before it nor those after it, so no snapshot can be taken."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"step {step} failed while it wrote rows, or told of them; no step's end can be read from this store any more"
        )
        self.step = step


class SnapshotAbandoned(StoreError):
    """Shadow and spill were full, so old rows of this snapshot were not kept. Take another one."""

    def __init__(self, reason: str, step: int, rows: int, why: str) -> None:
        super().__init__(
            f"{reason} snapshot of step {step} was abandoned after {rows} saved rows: {why}; "
            "read it faster, take it less often, or raise store.shadow_bytes or store.spill_bytes"
        )
        self.reason, self.step, self.rows = reason, step, rows


class NotFrozen(StoreError):
    """A row was asked for that the snapshot does not cover."""

    def __init__(self, table: str, row_id: int, step: int, why: str) -> None:
        super().__init__(f"row {row_id} of table {table!r} is not part of the snapshot of step {step}: {why}")
        self.table, self.row_id = table, row_id


class TierFull(StoreError):
    """A tier's byte bound was reached. The rows of the refused ``put`` were not taken; all others are still held."""

    def __init__(self, tier: str, table: str, new_rows: int, held_bytes: int, max_bytes: int, new_bytes: int) -> None:
        super().__init__(
            f"tier {tier!r} holds {held_bytes} of at most {max_bytes} bytes and cannot take {new_rows} new rows "
            f"({new_bytes} bytes) of table {table!r}: set store.dram_bytes to at least {held_bytes + new_bytes}"
        )
        self.table, self.new_rows, self.held_bytes, self.max_bytes = table, new_rows, held_bytes, max_bytes


class CacheTooSmall(StoreError):
    """A cache tier's byte bound leaves no room for one batch of rows."""

    def __init__(self, max_bytes: int, rows: int, need_bytes: int) -> None:
        super().__init__(
            f"store.dram_bytes is {max_bytes}, and {rows} rows, the smallest batch that is written to the tier below, take "
            f"{need_bytes} bytes: set store.dram_bytes to at least {need_bytes}, or leave it out to keep nothing in memory"
        )
        self.max_bytes, self.need_bytes = max_bytes, need_bytes


class CacheTooLarge(StoreError, MemoryError):
    """A cache tier's byte bound is more than the memory that is free."""

    def __init__(self, rows: int, rows_that_fit: int) -> None:
        super().__init__(
            f"store.dram_bytes asks for {rows} rows in memory, and the memory that is free takes at most "
            f"{rows_that_fit}: lower store.dram_bytes"
        )
        self.rows, self.rows_that_fit = rows, rows_that_fit


class CleaningFailed(StoreError):
    """A cache tier could not put rows into the tier below. They are still in memory, and are tried again."""

    def __init__(self, below: str, error: Exception) -> None:
        super().__init__(
            f"rows in memory could not be written to tier {below!r}: {error}; none is lost while the process lives"
        )


class UnknownTable(StoreError):
    """No table of that name."""

    def __init__(self, table: str, known: list[str]) -> None:
        super().__init__(f"no table {table!r}; the tables are {known}")
        self.table = table


class BadFetch(StoreError, ValueError):
    """Rows were asked for in a way that cannot be answered."""

    def __init__(self, table: str, why: str) -> None:
        super().__init__(f"fetch from table {table!r}: {why}")


class BadLoad(StoreError, ValueError):
    """Rows that cannot be loaded. Nothing was changed."""

    def __init__(self, table: str, why: str) -> None:
        super().__init__(f"load into table {table!r}: {why}. Nothing was loaded")
        self.table = table


class BatchesInFlight(StoreError):
    """Rows were to be loaded while batches hold reservations. Nothing was changed."""

    def __init__(self, batches: int, step: int) -> None:
        super().__init__(
            f"rows can be loaded only between two steps, and behind step {step} {batches} batches hold rows in L1 already: update and "
            "release them, or release them as they are and reserve them again behind the load"
        )
        self.batches, self.step = batches, step


class BadHook(StoreError, ValueError):
    """A hook that cannot be: where it is to run, what it takes, which tables."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"hook {name!r}: {why}")
        self.name, self.why = name, why


class HookFailed(StoreError):
    """A hook raised, and is to stop the run then."""

    def __init__(self, name: str, at: str, table: str, step: int, error: Exception) -> None:
        super().__init__(
            f"hook {name!r} ({at}) failed at step {step}, table {table!r}: {type(error).__name__}: {error}; "
            "with on_error: skip such a call is counted, and training goes on"
        )
        self.name, self.at, self.table, self.step = name, at, table, step


class PolicyNotFound(StoreError, ValueError):
    """A victim policy's name means nothing."""


class TransitionError(RuntimeError):
    """A slot was asked to make a transition that its state or its pins forbid: a bug above, found before anything
    changed.
    """

    def __init__(self, action: str, slot: int, state: str, pins: int) -> None:
        super().__init__(f"{action}: slot {slot} is {state} with {pins} pins")
        self.action, self.slot = action, slot
