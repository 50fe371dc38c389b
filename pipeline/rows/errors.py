"""What can go wrong with rows. Every error says what was found, and what would have worked."""

from __future__ import annotations

from collections.abc import Sequence


class RowsError(Exception):
    """Base of all errors of this room."""


class BadInitializer(RowsError, ValueError):
    """An initializer whose numbers float32 cannot hold."""

    def __init__(self, kind: str, names: Sequence[str], found: Sequence[float]) -> None:
        numbers = ", ".join(f"{name} {value}" for name, value in zip(names, found, strict=True))
        super().__init__(
            f"initializer {kind!r} with {numbers}: its numbers and their difference must be finite in float32"
        )


class UnknownCodec(RowsError, ValueError):
    """No codec of that name."""

    exit_code = 2

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(
            f"no codec {name!r}; the codecs are {', '.join(known)}; one of your own is named package.module:CODEC, in a config as "
            "`codec`, to a replica as --codec or Replica(codecs=...)"
        )
        self.name = name


class BadCodec(RowsError, ValueError):
    """A codec of somebody's own that does not do what a codec does."""

    exit_code = 2

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"codec {name}: {what}")
        self.name = name


class BadShape(RowsError, ValueError):
    """An array that is not what the call needs."""


class IndexFull(RowsError, MemoryError):
    """An index holds as many ids as its positions can number."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"an index holds at most {limit} ids: split the table")
