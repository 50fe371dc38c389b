"""What can go wrong between the built-in stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class StageInputError(ValueError):
    """Base: a batch that a stage cannot take."""


class MissingFeature(StageInputError):
    def __init__(self, missing: Sequence[str], found: Sequence[str], cursor: Mapping[str, Any]) -> None:
        super().__init__(
            f"a batch lacks the features {list(missing)} (behind {dict(cursor)}); it holds {list(found)}. "
            "Name their columns in the source, or take them out of `features`."
        )


class WrongMeta(StageInputError):
    def __init__(self, feature: str, what: str, cursor: Mapping[str, Any]) -> None:
        super().__init__(f"feature {feature!r}: {what} (source behind {dict(cursor)})")


class BatchDoesNotFit(StageInputError):
    def __init__(self, step: int, need: int, l1_rows: int, cursor: Mapping[str, Any]) -> None:
        super().__init__(
            f"step {step} needs {need} distinct rows at once and store.l1_rows is {l1_rows} (source behind {dict(cursor)}): "
            f"set store.l1_rows to at least {need}, or make batches smaller"
        )
        self.need, self.l1_rows = need, l1_rows


class NotFiniteLoss(StageInputError):
    def __init__(self, step: int, loss: float, cursor: Mapping[str, Any]) -> None:
        super().__init__(
            f"the loss of step {step} is {loss} (source behind {dict(cursor)}): nothing of that step was applied. "
            "A lower learning rate or scaled dense columns usually help."
        )


class WrongItems(StageInputError):
    def __init__(self, what: str, cursor: Mapping[str, Any]) -> None:
        super().__init__(f"negatives cannot be drawn (behind {dict(cursor)}): {what}")


class StreamTaken(Exception):
    def __init__(self, place: str) -> None:
        keys, way = "path", "remove what is there"
        if "://" in place:
            keys, way = "transport.stream", "have what is there removed with stages.stream.transport.replace=true"
        super().__init__(
            f"{place} already holds a stream, and a replica follows one run: choose another stages.stream.{keys}, or {way}"
        )


class ShardsChanged(Exception):
    def __init__(self, place: str, found: str, wanted: int) -> None:
        super().__init__(
            f"{place} holds a stream of {found}, and stages.stream.shards is {wanted}: rows would come from another shard than "
            "before. Leave it as it was, or begin a new stream, which carries all rows, in another stages.stream.path"
        )


class StreamDiverged(Exception):
    """A resumed run came to other rows than those it had published."""

    def __init__(self, step: int, begun: int, what: str) -> None:
        super().__init__(
            f"at step {step}, the last one that was published, the run resumed from step {begun} has other values than the stream: "
            f"{what}. Data, code or machine must have changed; nothing was published since. Undo the change and resume, or go on with the "
            "new values: --resume --accept proof makes a fork, which takes replicas back to its checkpoint"
        )


class StreamAhead(Exception):
    def __init__(self, published: int, ended: int) -> None:
        super().__init__(
            f"the stream shows step {published} and this run ended at step {ended}: replicas never go back. "
            f"Let it run at least to step {published}, or make it a fork, which takes them back: --resume --accept proof"
        )
