"""Shows how a run goes: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

PLAIN_EVERY_S = 5.0


class Progress:
    """``figures`` is called for the numbers to show; it must be cheap and callable on the loop's thread."""

    def __init__(self, figures: Callable[[], Mapping[str, Any]]) -> None:
        self._figures = figures
        self._console = Console(file=sys.stderr)
        self._live: Live | None = None
        self._last_plain = time.monotonic()

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True, auto_refresh=False)
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def show(self) -> None:
        """Called now and then by the run."""
        if self._live is not None:
            self._live.update(self._table(self._figures()), refresh=True)
        elif time.monotonic() - self._last_plain >= PLAIN_EVERY_S:
            self._last_plain = time.monotonic()
            figures = self._figures()
            self._console.print("  ".join(f"{key} {value}" for key, value in figures.items()), highlight=False)

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, highlight=False, markup=False)

    def _table(self, figures: Mapping[str, Any]) -> Table:
        table = Table.grid(padding=(0, 2))
        for key, value in figures.items():
            table.add_row(f"[dim]{key}[/dim]", str(value))
        return table
