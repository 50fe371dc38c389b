"""Benchmark rows as tables, for a terminal and for a README."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tools.bench.report import BenchRow

HEADINGS = ("what", "measured", "peer", "peer measured", "goal", "met")
MET = {None: "", True: "yes", False: "no"}
STYLES = {None: "", True: "green", False: "red"}


def rich_table(name: str, rows: Sequence[BenchRow]) -> Group:
    """For a terminal."""
    table = Table(*HEADINGS, title=Text(name, "bold"), title_justify="left")
    for row in rows:
        table.add_row(*map(Text, _cells(row)[:-1]), Text(MET[row.met], STYLES[row.met]))
    return Group(table, *(Text(line, "dim") for line in knob_lines(rows)))


def markdown_table(name: str, rows: Sequence[BenchRow]) -> str:
    """For a README: between markers, so that it can be found and replaced."""
    lines = [_line(HEADINGS), _line(["---"] * len(HEADINGS)), *(_line(_cells(row)) for row in rows)]
    knobs = [f"<sub>{line}</sub>" for line in knob_lines(rows)]
    return "\n".join([f"<!-- bench:{name} -->", *lines, "", *knobs, f"<!-- /bench:{name} -->"])


def knob_lines(rows: Sequence[BenchRow]) -> list[str]:
    """What the rows ran with: each set of knobs once."""
    sets = dict.fromkeys(", ".join(f"{key} {value}" for key, value in row.knobs.items()) for row in rows)
    return [f"knobs: {knobs}" for knobs in sets if knobs]


def _cells(row: BenchRow) -> list[str]:
    return [row.what, row.measured, row.peer, row.peer_measured, row.goal, MET[row.met]]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
