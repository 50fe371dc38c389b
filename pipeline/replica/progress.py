"""Shows how a replica goes: a live table on a terminal, a plain line now and then elsewhere.

Always on standard error.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

PLAIN_EVERY_S = 5.0
LIVE_EVERY_S = 0.2


class ReplicaProgress:
    """``lines`` is asked for texts by name, at most every ``LIVE_EVERY_S`` on a terminal and ``PLAIN_EVERY_S``
    elsewhere.
    """

    def __init__(self, lines: Callable[[], Mapping[str, str]], *, at_once: bool = False) -> None:
        """``at_once``: the first call of ``show`` shows, not the first after a while."""
        self._lines = lines
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._last = -math.inf if at_once else time.monotonic()

    def __enter__(self) -> ReplicaProgress:
        if self._console.is_terminal:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
            self._live = None

    def show(self) -> None:
        """Show the texts, where it is time for it."""
        now = time.monotonic()
        if now - self._last < (LIVE_EVERY_S if self._live is not None else PLAIN_EVERY_S):
            return
        self._last = now
        if self._live is None:
            self.say()
            return
        table = Table.grid(padding=(0, 2))
        for name, text in self._lines().items():
            table.add_row(f"[dim]{name}[/dim]", text)
        self._live.update(table, refresh=True)

    def say(self) -> None:
        """One plain line with all texts, which stays."""
        texts = (f"{name}: {text}" for name, text in self._lines().items())
        self._console.print("; ".join(texts), highlight=False, markup=False, soft_wrap=True)
