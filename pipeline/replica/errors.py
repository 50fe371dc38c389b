"""What can go wrong in a replica. Every error says where, and what would have worked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.wire.frames import CutPosition


class ReplicaError(Exception):
    """Base of all errors of this room. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UnknownTable(ReplicaError, KeyError):
    exit_code = 2

    def __init__(self, table: str, known: Iterable[str]) -> None:
        names = list(known)
        near = get_close_matches(table, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        held = f"it holds {', '.join(names)}" if names else "no header frame has come yet"
        self.message = f"the replica holds no table {table!r}: {held}{hint}"
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class UnknownColumn(ReplicaError, KeyError):
    """A column that does not ride along in the stream."""

    exit_code = 2

    def __init__(self, table: str, column: str, carried: Iterable[str]) -> None:
        names = list(carried)
        held = f"it carries {', '.join(names)}" if names else "it carries weights alone"
        self.message = f"the replica holds no column {column!r} of table {table!r}: {held}; the trainer's config names what rides along"
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class ViewExpired(ReplicaError):
    """The rows that the view needs were let go, because all pinned rows together took more than ``pinned_bytes``."""

    def __init__(self, position: CutPosition, pinned_bytes: int) -> None:
        super().__init__(
            f"the view of cut {_name(position)} has ended: the rows that pinned views keep take more than "
            f"pinned_bytes = {pinned_bytes}; open a new view, keep views open for less long, or raise pinned_bytes"
        )


class ReplicaClosed(ReplicaError):
    """The replica, or the view, was closed."""


class Refused(ReplicaError):
    """A frame that this replica must not take. ``where`` is its place in the stream."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"stream position {where}: {what}")
        self.where = where


class OtherRun(Refused):
    def __init__(self, where: str, found: str, expected: str) -> None:
        super().__init__(where, f"the stream of {found}, this replica follows {expected}; start a new replica for it")


class OtherShard(Refused):
    def __init__(self, where: str, found: tuple[int, int], expected: tuple[int, int]) -> None:
        super().__init__(
            where,
            f"shard {found[0]} of {found[1]} came where shard {expected[0]} of {expected[1]} was expected: a replica follows all shards "
            "of a stream; name the directory that holds them, or give their transports in the order of the shards",
        )


class OtherShards(ReplicaError):
    """The stream has another number of shards than an earlier life of the replica followed."""

    def __init__(self, kept: int, found: int) -> None:
        super().__init__(
            f"the replica followed {kept} shards, the stream has {found}: start a new replica, in another directory"
        )


class TableChanged(Refused):
    def __init__(self, where: str, table: str, was: str, now: str) -> None:
        super().__init__(where, f"table {table!r} was {was} and is now {now}; start a new replica")


class NoHeader(Refused):
    def __init__(self, where: str, generation: int) -> None:
        super().__init__(where, f"a frame of generation {generation} whose header frame did not come before it")


class StepFell(Refused):
    def __init__(self, where: str, position: CutPosition, step: int, applied: CutPosition, applied_step: int) -> None:
        super().__init__(
            where,
            f"cut {_name(position)} is of step {step}, cut {_name(applied)} was of step {applied_step}, and it says of no fork: "
            "its trainer went on from an older checkpoint than the stream's; resume that with --accept proof, which makes a fork",
        )


class DamagedFrame(Refused):
    """Bytes that are no frame; nothing of the cut in progress was applied."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, f"{what}; nothing of the cut it belongs to was applied")


class DamagedCut(Refused):
    """A cut whose frames do not make up what its commit frame says; nothing of it was applied."""

    def __init__(self, where: str, position: CutPosition, snapshot: bool, what: str) -> None:
        kind = "snapshot cut" if snapshot else "cut"
        super().__init__(where, f"{kind} {_name(position)}: {what}; nothing of it was applied")
        self.position = position


class NoStartingPoint(ReplicaError):
    """The oldest cuts were removed by retention, and no whole snapshot cut has come yet."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"{where}: the stream begins behind its first cut and holds no whole snapshot cut to start from; "
            "follow it (--follow) until the next one is published"
        )


class ReplicaFailed(ReplicaError):
    """Applying a cut failed half-way (out of memory, for one): the rows held are no state of the trainer any more."""

    def __init__(self, position: CutPosition, cause: BaseException) -> None:
        super().__init__(
            f"cut {_name(position)} could not be applied: {cause!r}; this replica answers no more, start a new one"
        )


class OtherTables(ReplicaError):
    """A replica's directory that holds other tables than are asked for now."""

    exit_code = 2

    def __init__(self, where: str, held: list[str] | None, wanted: list[str] | None) -> None:
        told = ["all tables" if names is None else f"tables {', '.join(names)}" for names in (held, wanted)]
        super().__init__(
            f"{where} holds {told[0]}, asked for are {told[1]}: ask for the same, or choose another directory"
        )


class TargetUnreachable(ReplicaError):
    """The target does not answer; the cut is applied again."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} does not answer: {why}")


class TargetFailed(ReplicaError):
    """The target refuses what it is told."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")


class TargetChanged(ReplicaError):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} has another position than this replica left there: another replica writes there too, or it lost its data; "
            "a replica that is started anew goes on from what is there"
        )


class RowsElsewhere(ReplicaError):
    def __init__(self, name: str) -> None:
        super().__init__(f"this replica holds no rows: they are in {name}; look them up there")


class NotRetained(ReplicaError):
    """No such cut can be reached from what the stream still holds. ``told``: the steps that can."""

    exit_code = 2

    def __init__(self, wanted: str, retained: Sequence[tuple[CutPosition, int]]) -> None:
        if retained:
            (first, first_step), (last, last_step) = retained[0], retained[-1]
            held = f"from cut {_name(first)} (step {first_step}) to cut {_name(last)} (step {last_step}), {len(retained)} cuts"
        else:
            held = "no cut at all: no whole snapshot cut is left, and its beginning is gone"
        super().__init__(f"{wanted} cannot be reached: the stream holds {held}")


class RetainedGone(ReplicaError):
    """Retention removed what led to a cut, while it was being read."""

    def __init__(self, position: CutPosition) -> None:
        super().__init__(
            f"what leads to cut {_name(position)} went out of the stream while it was read; see what is retained now"
        )


class NoCutForCheckpoint(ReplicaError):
    """No cut of the stream goes with a checkpoint."""

    def __init__(self, checkpoint: str, step: int, why: str) -> None:
        super().__init__(f"cannot start from {checkpoint}, of step {step}: {why}")


class CheckpointOfOther(ReplicaError):
    """A checkpoint of another run, or of other tables, than the stream's."""

    exit_code = 2

    def __init__(self, checkpoint: str, what: str) -> None:
        super().__init__(f"cannot start from {checkpoint}: {what}")


class BadTarget(ReplicaError):
    """A target that there is not, or options that do not go with it."""

    exit_code = 2


class NotKept(ReplicaError):
    """What was applied could not be written. Rows in memory can still be looked up; a restart goes on behind ``position``."""

    def __init__(self, position: CutPosition, cause: BaseException) -> None:
        super().__init__(
            f"the replica cannot keep what it applies: {cause}; durable is cut {_name(position)}, where it goes on when it is started again"
        )
        self.position = position


def _name(position: CutPosition) -> str:
    return f"{position.cut} of generation {position.generation}"
