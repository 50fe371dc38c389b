"""A target in the place of tables: rows lie outside the process, and only the position is known here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pipeline.replica.cuts import Applied, Cut, State
from pipeline.replica.errors import RowsElsewhere, TargetUnreachable
from pipeline.replica.tables import Tables
from pipeline.replica.targets.positions import decode_position, encode_position
from pipeline.replica.targets.target import Target
from pipeline.replica.view import View
from pipeline.wire.encoding import decode_frame
from pipeline.wire.frames import FrameLimits, HeaderFrame

PATIENCE_S = 60.0
"""How long a target may be out of reach."""
LONGEST_WAIT_S = 2.0


class Outside(Tables):
    """See the module docstring. Nothing can be looked up."""

    def __init__(
        self, target: Target, wanted: frozenset[str] | None, limits: FrameLimits, patience_s: float = PATIENCE_S
    ) -> None:
        super().__init__(0, wanted)
        self._target, self._limits, self._patience_s = target, limits, patience_s
        self._closed = threading.Event()

    @property
    def notice(self) -> str:
        return (
            f"rows go to {self._target.name}: its readers see of each row what the newest cut that has it brought, not all rows at one "
            "step; a key tells the position"
        )

    def restore(self) -> Applied | None:
        kept = self._target.position()
        if kept is None:
            return None
        applied = decode_position(self._target.name, kept, self._wanted)
        for place in applied.places:
            header = decode_frame(place.header, self._limits)
            assert isinstance(header, HeaderFrame)
            self.describe("kept header", header)
        self.state = State(0, applied)
        return applied

    def describe(self, where: str, header: HeaderFrame) -> None:
        super().describe(where, header)
        self._target.begin(header, [table.spec.name for table in header.tables if self.wants(table.spec.name)])

    def apply(self, cut: Cut) -> int:
        deadline, wait_s = time.monotonic() + self._patience_s, 0.05
        while True:
            try:
                self._target.apply(cut)
                self._target.commit(cut.applied, encode_position(cut.applied, self._wanted))
            except TargetUnreachable:
                if time.monotonic() >= deadline or self._closed.wait(wait_s):
                    raise
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                continue
            self.state = State(self.state.serial + 1, cut.applied)
            return 0

    def commit(self) -> Applied | None:
        return self.state.applied

    def open_view(self, check: Callable[[], None]) -> View:
        check()
        raise RowsElsewhere(self._target.name)

    def close(self) -> None:
        self._closed.set()
        self._target.close()
