"""What can go wrong while a stream is made. Errors of the transport pass through as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class StreamError(Exception):
    """Base of all errors of this room."""


class PolicyError(StreamError, ValueError):
    """A text that names no moment to cut, or no time."""

    def __init__(
        self,
        text: object,
        what: str = "when to cut",
        instead: str = "a number of steps or a time above zero, such as '10 steps', '25ms' or '1.5s'",
    ) -> None:
        super().__init__(f"{text!r} does not say {what}; write {instead}")


class SnapshotLost(StreamError):
    """A row source could not keep a snapshot until it was read. The cut is abandoned; its rows go into the next one."""


class BacklogLeft(StreamError):
    """``drain`` could not publish everything."""

    def __init__(self, rows: int, step: int, attempts: int) -> None:
        super().__init__(
            f"{rows} changed rows up to step {step} are not published: {attempts} cuts in a row lost their snapshot; "
            "drain when training has stopped, or give snapshots more room (store.shadow_bytes, store.spill_bytes)"
        )


class BadTables(StreamError, ValueError):
    """Tables that cannot be streamed."""


class BadRows(StreamError, ValueError):
    """Ids or rows that do not fit their table. Nothing of them was taken."""

    def __init__(self, table: str, what: str) -> None:
        super().__init__(f"table {table!r}: {what}")


class NoSuchTable(StreamError, ValueError):
    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"no table {name!r} is streamed; the tables are {', '.join(known)}")


class StepWentBack(StreamError, ValueError):
    """Nothing was taken: what was told still waits for the step's end."""

    def __init__(self, step: object, last: int) -> None:
        super().__init__(
            f"step {step!r} cannot end behind step {last}: steps are whole numbers that rise, and a stream that is opened again goes on "
            "behind its last published step (`committed_step`); `restart` goes back"
        )


class WrongMoment(StreamError, RuntimeError):
    """A call that cannot be made now. Nothing was changed."""


class CannotRead(StreamError, RuntimeError):
    def __init__(self, table: str) -> None:
        super().__init__(
            f"the rows of table {table!r} were named and nobody can read them: "
            "give `rows`, a function (table, ids) -> float32 [n, dim], or push them"
        )


class CannotPush(StreamError, RuntimeError):
    def __init__(self, table: str) -> None:
        super().__init__(
            f"rows of table {table!r} were pushed and this stream reads them from its RowSource: "
            "`touch` their ids, or give tables in its place"
        )


class CannotList(StreamError, RuntimeError):
    def __init__(self, table: str) -> None:
        super().__init__(
            f"nobody can list the rows of table {table!r}, and a snapshot cut names them all: "
            "give `rows` an object whose `ids(table)` does, or tell of all rows and call `restart`"
        )


class PushedRowsFull(StreamError, RuntimeError):
    """Nothing was taken, and nothing that was pushed before is lost."""

    def __init__(self, table: str, new_bytes: int, held_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"{new_bytes} bytes of rows of table {table!r} were pushed on top of {held_bytes} that no cut has carried yet, "
            f"and pushed_bytes is {limit_bytes}: end steps more often, see why cuts fail, or raise it"
        )


class StreamExists(StreamError):
    def __init__(self, name: str) -> None:
        super().__init__(f"{name} already holds a stream: resume=True goes on with it, or choose another place")


class OtherStream(StreamError):
    def __init__(self, name: str, what: str) -> None:
        super().__init__(
            f"{name} holds a stream that cannot be gone on with: {what}. Choose another place, or give what it was begun with"
        )


class SelectionChanged(StreamError):
    """A stream was to go on with other tables, or other columns of them. Nothing was published."""

    def __init__(self, place: str, table: str, was: Sequence[str] | None, now: Sequence[str] | None) -> None:
        super().__init__(
            f"{place} carries {_carried(table, was)}, and now it would carry {_carried(table, now)}: its replicas would hold rows "
            "that are no state of the trainer. Select what was selected, or name another place: a stream that begins there has every row"
        )


def _carried(table: str, columns: Sequence[str] | None) -> str:
    if columns is None:
        return f"no table {table!r}"
    return f"table {table!r} with {', '.join(columns) or 'nothing'} beside its weights"
