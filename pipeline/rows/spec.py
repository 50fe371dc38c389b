"""What a table is: its name, its row layout and how its rows begin."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.rows.layout import RowLayout

NAME_PATTERN = r"[A-Za-z0-9_.-]{1,128}"


@dataclass(frozen=True)
class Initializer:
    """How the weights of a row that was never updated are made. States begin at zero.

    ``uniform``: between ``low`` and ``high``; ``normal``: ``mean`` and ``std``; ``zeros``.
    """

    kind: Literal["uniform", "normal", "zeros"] = "uniform"
    low: float = -0.01
    high: float = 0.01
    mean: float = 0.0
    std: float = 0.01


@dataclass(frozen=True)
class TableSpec:
    """One table. ``seed`` and ``name`` key the initial rows (G6)."""

    name: str
    layout: RowLayout
    initializer: Initializer
    seed: int
    default: float | None = None
    """Of tables with admission: an id without a row is answered with a row whose weights all are this number, states zero."""

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.name):
            raise ValueError(f"table name {self.name!r} does not match {NAME_PATTERN}")

    @property
    def absent(self) -> TableSpec:
        """Whose initial rows are what is answered for ids that have no row: this table's own, unless it has a default row."""
        if self.default is None:
            return self
        return replace(self, initializer=Initializer("uniform", self.default, self.default), default=None)

    @property
    def dim(self) -> int:
        return self.layout.dim
