"""Finds the benchmarks beside this file, runs them and prints a table for each: ``python -m pipeline bench [NAME ...]``.

A benchmark is a module here with ``NAME``, ``HELP`` and ``run(quick) -> list[BenchRow]``. One that fails is shown as failed, the
others run on, and the exit code is 1.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from rich.console import Console

from pipeline.config.known import nearest
from pipeline.console import UsageError
from pipeline.session import environment
from tools.bench.report import BenchRow
from tools.bench.tables import markdown_table, rich_table

PACKAGE = "tools.bench"


def main(
    names: Sequence[str],
    quick: bool,
    *,
    markdown: bool = False,
    json_file: Path | None = None,
    listing: bool = False,
    package: str = PACKAGE,
) -> int:
    """Run the named benchmarks, or all. Returns the exit code: 1 when one of them failed. Raises UsageError."""
    environment.pin()
    found = find(package)
    console = Console(highlight=False)
    if listing:
        for name, module in found.items():
            console.print(f"[bold]{name}[/bold]  {module.HELP}", soft_wrap=True)
        return 0
    results: dict[str, list[BenchRow]] = {}
    failed = []
    for name in _chosen(names, found):
        console.print(f"[dim]{name}: {found[name].HELP} ...[/dim]")
        try:
            results[name] = found[name].run(quick)
        except Exception as error:
            failed.append(name)
            traceback.print_exc()
            results[name] = [BenchRow(name, found[name].HELP, f"failed: {type(error).__name__}: {error}", met=False)]
        if not markdown:
            console.print(rich_table(name, results[name]))
    if markdown:
        print("\n\n".join(markdown_table(name, rows) for name, rows in results.items()))
    if json_file is not None:
        json_file.write_text(json.dumps(_described(results, quick), indent=1, default=str) + "\n")
    return 1 if failed else 0


def find(package: str = PACKAGE) -> dict[str, ModuleType]:
    """The benchmarks, by name, sorted."""
    holder = importlib.import_module(package)
    modules = [importlib.import_module(f"{package}.{info.name}") for info in pkgutil.iter_modules(holder.__path__)]
    benches = [module for module in modules if all(hasattr(module, name) for name in ("NAME", "HELP", "run"))]
    by_name: dict[str, ModuleType] = {}
    for module in sorted(benches, key=lambda module: str(module.NAME)):
        if module.NAME in by_name:
            raise RuntimeError(
                f"two benchmarks are named {module.NAME!r}: {by_name[module.NAME].__name__}, {module.__name__}"
            )
        by_name[module.NAME] = module
    return by_name


def _chosen(names: Sequence[str], found: dict[str, ModuleType]) -> list[str]:
    for name in names:
        if name not in found:
            near = nearest(name, found)
            meant = f"; did you mean {near!r}?" if near else "."
            raise UsageError(f"no benchmark is named {name!r}{meant} There are: {', '.join(found)}")
    return list(names or found)


def _described(results: dict[str, list[BenchRow]], quick: bool) -> dict[str, object]:
    machine = {**environment.record(os.cpu_count() or 1), "cores": os.cpu_count()}
    return {
        "machine": machine,
        "quick": quick,
        "benches": {name: [asdict(row) for row in rows] for name, rows in results.items()},
    }
