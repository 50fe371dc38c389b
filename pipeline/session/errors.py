"""What can go wrong around a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class SessionError(Exception):
    """Base. ``exit_code`` is what the command line returns."""

    exit_code = 1


class RunDirTaken(SessionError):
    exit_code = 2

    def __init__(self, path: Path, holds: str, hint: str) -> None:
        super().__init__(f"run.dir {path} already holds {holds}; {hint}")


class NoRunDir(SessionError):
    exit_code = 2

    def __init__(self, path: Path) -> None:
        super().__init__(f"run.dir {path} is no directory and none can be made there; choose another run.dir")


class NoRun(SessionError):
    exit_code = 2

    def __init__(self, path: Path, missing: str) -> None:
        super().__init__(f"{path} holds no {missing}; give the run.dir of a run that ended or was interrupted cleanly")


class NotYet(SessionError):
    exit_code = 2

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what} cannot be had in this version; {instead}")


class L1SmallerThanBatch(SessionError):
    exit_code = 2

    def __init__(self, l1_rows: int, stage: str, max_ids: int) -> None:
        super().__init__(
            f"store.l1_rows is {l1_rows}, and stages.{stage}.max_ids says that one batch may hold {max_ids} distinct ids: "
            f"set store.l1_rows to at least {max_ids}"
        )


class DisksTooSmall(SessionError):
    exit_code = 2

    def __init__(self, directories: Sequence[str], max_bytes: int, room: int) -> None:
        super().__init__(
            f"store.ssd.bytes is {max_bytes}, and the disks of {', '.join(directories)} have room for {room} bytes: set it to at most "
            "that, free some, or name directories on larger disks in store.ssd.path"
        )


class CopyTaken(SessionError):
    exit_code = 2

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"checkpoint.copy_to {path} cannot be used: {why}; name a directory that is empty or not there yet"
        )


class UnknownRow(SessionError):
    exit_code = 2


class NotAnswering(SessionError):
    """A live run that gave no rows."""


class OtherJob(SessionError):
    """A resume with a config or on a machine that would not go on with the same arithmetic."""

    exit_code = 2

    def __init__(self, path: Path, differs: Sequence[object]) -> None:
        super().__init__(
            f"{path} cannot be resumed so: these change what is computed: {'; '.join(map(str, differs))}. "
            "Give the values of that run, begin another in another run.dir, or --accept each KEY that is to differ: that makes a fork, "
            "which takes replicas back to its checkpoint"
        )


class NotAcceptable(SessionError):
    """What rows are before their first update is the same for a run's whole life."""

    exit_code = 2

    def __init__(self, path: Path, differs: Sequence[object]) -> None:
        super().__init__(
            f"{path} cannot be resumed so, and no --accept helps: rows that were never updated, in replicas too, would be others: "
            f"{'; '.join(map(str, differs))}. Give the values of that run, or begin another in another run.dir"
        )


class NeedlessAccept(SessionError):
    """``--accept`` of a key that is as it was, or that may differ anyway, or that nobody knows."""

    exit_code = 2

    def __init__(self, path: Path, names: Sequence[str], differs: Sequence[object]) -> None:
        found = f"these do: {'; '.join(map(str, differs))}" if differs else "nothing does"
        super().__init__(
            f"--accept {', '.join(names)}: nothing so named differs from the run in {path} in a way that has to be accepted; {found}. "
            "Leave it away"
        )


class OtherCheckpoint(SessionError):
    exit_code = 2

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} is not this job's: {what}")


class OtherRunsStream(SessionError):
    exit_code = 2

    def __init__(self, source: str, found: str, path: Path, expected: str) -> None:
        super().__init__(
            f"{source} is the stream of run {found}, and {path} is run {expected}: give the directory of the run that wrote the stream"
        )


class NoCommonStep(SessionError):
    """No checkpoint of the run is of a step at which a replica of its stream ever stands."""

    exit_code = 2

    def __init__(self, path: Path, checkpoints: Sequence[int], cuts: Sequence[int], last: int) -> None:
        told = []
        for step in checkpoints:
            before = max((cut for cut in cuts if cut < step), default=None)
            behind = min((cut for cut in cuts if cut > step), default=None)
            told.append(f"step {step} (cuts of steps {before} and {behind} around it)")
        super().__init__(
            f"nothing to compare: {path} has checkpoints of {', '.join(told)}, and no cut in the stream, which goes to step {last}, is of "
            "one of these steps. An ended run has both of its last step: let it end, or interrupt it (Ctrl-C), or --resume it; a run "
            'that goes on has both where stages.stream.every ("10 steps") divides checkpoint.every ("1000 steps")'
        )


class RunIsLive(SessionError):
    exit_code = 2

    def __init__(self, path: Path) -> None:
        super().__init__(f"a run goes on in {path}, and publishes by itself: wait until it has ended, or interrupt it")


class NothingStreamed(SessionError):
    exit_code = 2

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the run in {path} has no stage `stream`: there is nothing to publish. Stream with stages.stream.enabled=true"
        )


class NoCheckpointYet(SessionError):
    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} has no checkpoint of a step that was trained, so nobody has its rows any more: run --resume trains them again, "
            "and publishes them"
        )
