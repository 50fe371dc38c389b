"""What can go wrong with a module. Each says what was found, where, and what would have worked; nothing was changed by it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class ModuleError(ValueError):
    """Base."""


class BadSettings(ModuleError):
    """Tables, features or options that cannot be."""


class BadFeatures(ModuleError):
    """Ids, offsets or weights that are no batch of this module's features. The next forward works."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")


class UnknownFeatures(BadFeatures):
    def __init__(self, where: str, unknown: Iterable[str], missing: Iterable[str], known: Iterable[str]) -> None:
        parts = [
            f"{what} {', '.join(map(repr, names))}"
            for what, names in (("has the unknown", list(unknown)), ("lacks", list(missing)))
            if names
        ]
        super().__init__(where, f"it {' and '.join(parts)}; the features of this module are {', '.join(known)}")


class BackwardTwice(RuntimeError):
    def __init__(self, step: int) -> None:
        super().__init__(
            f"backward reached the rows of step {step} a second time: the first one has updated them already, and a step updates once; "
            "add the losses up and call backward once for each forward"
        )


class GivenUp(RuntimeError):
    def __init__(self) -> None:
        super().__init__(
            "backward reached rows of a forward that was given up when the next one began: in train() each forward has its backward "
            "before the next. To accumulate dense gradients call backward after each forward and step the dense optimizer less often; "
            "to look rows up several times in one step put the batches into one forward; forwards without backward belong under eval()"
        )


class BackwardAwaited(RuntimeError):
    def __init__(self, step: int) -> None:
        super().__init__(
            f"rows were to be loaded between the forward of step {step} and its backward: call backward first. Forwards without backward "
            "belong under eval()"
        )


class Closed(RuntimeError):
    def __init__(self) -> None:
        super().__init__("the module was closed: its rows are in what it saved; make another one and load that")


class StateTooLarge(ModuleError):
    def __init__(self, nbytes: int, limit: int) -> None:
        super().__init__(
            f"the rows ever updated take {nbytes} bytes, and state_dict holds at most state_bytes={limit}: raise that, or use save(path), "
            "which writes them to disk piece by piece"
        )


class BadState(ModuleError):
    """A state or checkpoint that is not this module's. Nothing was loaded."""


class NotFresh(ModuleError):
    def __init__(self, what: str, why: str) -> None:
        super().__init__(
            f"{what} goes into a module that has not trained yet, and {why}: make another module and load into that"
        )


class NeedsDir(ModuleError):
    def __init__(self, what: str) -> None:
        super().__init__(f"{what} needs a directory: give the module dir=...")


class ChannelTaken(ModuleError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} already holds a stream of another module or run; give stream.path another directory")
