"""How long files and functions are: ``python -m tools.size_report``. Exit code 1 when a limit is passed.

A file aims at 150 lines and a function at 20; past 300 and 40 it is time to split. Docstrings do not count in functions. Each room
has a README of at most 60 lines.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ("pipeline", "stages", "cuda", "tools")
TESTS = "tests"

FILE_AIM, FILE_LONG, SOURCE_LIMIT, TEST_LIMIT = 150, 300, 300, 600
FUNCTION_AIM, FUNCTION_LONG, FUNCTION_LIMIT = 20, 40, 60
README_LIMIT = 60


@dataclass(frozen=True, slots=True)
class Measured:
    """A file or a function, its length in lines, and the bounds that hold for it."""

    name: str
    lines: int
    aim: int
    long: int
    limit: int


def files(root: Path) -> Iterator[Measured]:
    """Every Python file."""
    for top, limit in (*((name, SOURCE_LIMIT) for name in SOURCE), (TESTS, TEST_LIMIT)):
        for path in sorted((root / top).rglob("*.py")):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            yield Measured(str(path.relative_to(root)), lines, FILE_AIM, FILE_LONG, limit)


def functions(root: Path) -> Iterator[Measured]:
    """Every function and method."""
    for top in (*SOURCE, TESTS):
        for path in sorted((root / top).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    name = f"{path.relative_to(root)}:{node.lineno} {node.name}"
                    yield Measured(name, code_lines(node), FUNCTION_AIM, FUNCTION_LONG, FUNCTION_LIMIT)


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, the docstring's left out."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return lines


def readmes(root: Path) -> Iterator[str]:
    """What is wrong with the READMEs of the rooms."""
    rooms = [root / name for name in ("stages", "cuda", "tools")]
    rooms += [path for path in (root / "pipeline").iterdir() if any(path.glob("*.py"))]
    for room in sorted(rooms):
        readme = room / "README.md"
        if not readme.exists():
            yield f"{room.relative_to(root)} has no README.md"
        elif (lines := len(readme.read_text(encoding="utf-8").splitlines())) > README_LIMIT:
            yield f"{readme.relative_to(root)}: {lines} lines, at most {README_LIMIT}"


def report(kind: str, measured: list[Measured]) -> list[str]:
    """Print what is longer than it should be; return what passes the limit."""
    aim, long = measured[0].aim, measured[0].long
    lengths = sorted(one.lines for one in measured)
    above = sum(lines > aim for lines in lengths)
    median, longest = lengths[len(lengths) // 2], lengths[-1]
    print(f"{len(lengths)} {kind}: median {median} lines, longest {longest}, {above} past {aim}")
    for one in sorted(measured, key=lambda one: -one.lines):
        if one.lines > long:
            print(f"  {one.lines:4d}  {one.name}")
    return [f"{one.name}: {one.lines} lines, at most {one.limit}" for one in measured if one.lines > one.limit]


def main(root: Path = ROOT) -> int:
    wrong = [*report("files", list(files(root))), *report("functions", list(functions(root))), *readmes(root)]
    for line in wrong:
        print(f"too long: {line}" if "at most" in line else line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
