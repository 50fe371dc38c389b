"""Files and directories in memory, with what is durable held apart from what is only visible."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["keep", "drop", "tear", "reorder"]
OUTCOMES: tuple[Outcome, ...] = ("keep", "drop", "tear", "reorder")
"""What becomes of unsynced data at a crash: all of it is there; none; a part, cut anywhere; sectors of it, in any
order."""
SECTOR = 512


@dataclass
class Change:
    """One unsynced change of a file: bytes at an offset, or a cut to ``offset`` (data None)."""

    offset: int
    data: bytes | None
    lost: bool = False
    """A sync failed while it was pending: later syncs do not save it."""

    def apply(self, content: bytearray) -> None:
        if len(content) < self.offset:
            content.extend(bytes(self.offset - len(content)))
        if self.data is None:
            del content[self.offset :]
        else:
            content[self.offset : self.offset + len(self.data)] = self.data


class FileNode:
    """One file."""

    def __init__(self, content: bytes = b"") -> None:
        self.visible = bytearray(content)
        self.durable = bytearray(content)
        self.pending: list[Change] = []

    def change(self, change: Change) -> None:
        change.apply(self.visible)
        self.pending.append(change)

    def sync(self) -> None:
        for change in self.pending:
            if not change.lost:
                change.apply(self.durable)
        self.pending = [change for change in self.pending if change.lost]

    def lose_pending(self) -> None:
        for change in self.pending:
            change.lost = True

    def after_crash(self, outcome: Outcome, rng: random.Random) -> FileNode:
        content = bytearray(self.durable)
        for change in _survivors(self.pending, outcome, rng):
            change.apply(content)
        return FileNode(bytes(content))


def _survivors(pending: list[Change], outcome: Outcome, rng: random.Random) -> list[Change]:
    if outcome == "keep":
        return pending
    if outcome == "drop" or not pending:
        return []
    if outcome == "tear":
        kept = pending[: rng.randrange(len(pending) + 1)]
        if kept and kept[-1].data is not None:
            last = kept[-1]
            kept[-1] = Change(last.offset, (last.data or b"")[: rng.randrange(len(last.data or b"") + 1)])
        return kept
    pieces = [piece for change in pending for piece in _sectors(change)]
    return [piece for piece in pieces if rng.random() < 0.5]


def _sectors(change: Change) -> list[Change]:
    if change.data is None:
        return [change]
    pieces, at = [], 0
    while at < len(change.data):
        size = SECTOR - (change.offset + at) % SECTOR
        pieces.append(Change(change.offset + at, change.data[at : at + size]))
        at += size
    return pieces


Entries = dict[str, "FileNode | DirNode"]


@dataclass
class DirNode:
    """One directory. A pending change of names is a function on its entries; they become durable in order, or at "reorder" any of them."""

    visible: Entries = field(default_factory=dict)
    durable: Entries = field(default_factory=dict)
    pending: list[Callable[[Entries], object]] = field(default_factory=list)

    def change(self, change: Callable[[Entries], object]) -> None:
        change(self.visible)
        self.pending.append(change)

    def sync(self) -> None:
        for change in self.pending:
            change(self.durable)
        self.pending = []

    def after_crash(self, outcome: Outcome, rng: random.Random) -> DirNode:
        entries = dict(self.durable)
        kept = self.pending[: {"keep": len(self.pending), "drop": 0}.get(outcome, rng.randrange(len(self.pending) + 1))]
        if outcome == "reorder":
            kept = [change for change in self.pending if rng.random() < 0.5]
        for change in kept:
            change(entries)
        entries = {name: node.after_crash(outcome, rng) for name, node in entries.items()}
        return DirNode(dict(entries), dict(entries))
