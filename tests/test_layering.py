"""Imports go down only; heavy libraries stay where they belong; ``cuda`` stays a namespace that others share."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each room may import; and whatever those may.
BELOW: dict[str, set[str]] = {
    "pipeline.__main__": {"pipeline.cli"},
    # The one way up: benchmarks live in the checkout only, and are looked for when somebody asks for them.
    "pipeline.cli": {"pipeline.cli_replica", "pipeline.console", "pipeline.session", "tools"},
    "pipeline.cli_replica": {"pipeline.console", "pipeline.session"},
    # Lazy: nothing is imported until a name is asked for.
    "pipeline.__init__": {"pipeline.modules", "pipeline.replica"},
    "pipeline.modules": {"pipeline.session"},
    "pipeline.console": {"pipeline.config", "pipeline.flow"},
    "pipeline.session": {
        "pipeline.flow",
        "pipeline.config",
        "pipeline.store",
        "pipeline.stream",
        "pipeline.replica",
        "pipeline.models",
    },
    "stages": {"pipeline.flow", "pipeline.store", "pipeline.stream", "pipeline.models", "pipeline.rows"},
    "pipeline.store": {"pipeline.rowlog", "pipeline.optim", "cuda"},
    "pipeline.stream": {"pipeline.wire"},
    "pipeline.replica": {"pipeline.wire", "pipeline.rowlog"},
    "pipeline.wire": {"pipeline.rows", "pipeline.files"},
    "pipeline.rowlog": {"pipeline.rows", "pipeline.files"},
    "pipeline.optim": {"pipeline.rows", "cuda"},
    "cuda": {"pipeline.rows"},
    "pipeline.models": set(),
    "pipeline.rows": set(),
    "pipeline.config": set(),
    "pipeline.flow": set(),
    "pipeline.files": set(),
}
PRODUCT = {"pipeline", "stages", "cuda", "configs", "tools", "tests"}

# Rooms that know few libraries, and the libraries.
LIBRARIES: dict[str, set[str]] = {
    "pipeline.files": set(),
    "pipeline.flow": {"pydantic", "uvloop"},
    "pipeline.config": {"omegaconf", "pydantic", "pydantic_core", "yaml"},
    "pipeline.console": {"pydantic", "rich"},
    "pipeline.cli": {"typer"},
    "pipeline.cli_replica": {"typer"},
    # pyarrow: only to take columns of text for hashing.
    "pipeline.rows": {"numpy", "numba", "llvmlite", "pyarrow"},
}
TORCH_ROOMS = {"pipeline.models", "pipeline.session", "pipeline.modules", "stages"}
# In cuda, torch and pycuda appear only in the files that need them.
CUDA_FILES: dict[str, set[str]] = {"torch": set(), "pycuda": set()}

NVIDIA_NAMES = {"bindings", "core", "pathfinder", "compute", "tile", "coop", "cccl", "nvrtc", "cudart"}


def room_of(module: str) -> str:
    """The room a module belongs to: the second name below ``pipeline``, the first elsewhere."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "pipeline" and len(parts) > 1 else parts[0]


@cache
def reachable(room: str) -> frozenset[str]:
    """The rooms that ``room`` may import."""
    direct = BELOW.get(room, set())
    return frozenset(direct.union(*(reachable(below) for below in direct if below in BELOW)))


def imports() -> Iterator[tuple[str, str, str]]:
    """(``file:line``, importing room, imported module) of every import of the product."""
    for top in ("pipeline", "stages", "cuda"):
        for path in sorted((ROOT / top).rglob("*.py")):
            relative = path.relative_to(ROOT)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for module in imported(node):
                    yield f"{relative}:{node.lineno}", room_of(".".join(relative.with_suffix("").parts)), module  # type: ignore[attr-defined]


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        # `from pipeline import session` imports a room too.
        return [f"pipeline.{name.name}" for name in node.names] if module == "pipeline" else [module]
    return []


def test_imports_go_down_only() -> None:
    wrong = [
        f"{where}: {room} may not import {module}"
        for where, room, module in imports()
        if module.split(".")[0] in PRODUCT and is_up(room, room_of(module))
    ]
    assert not wrong, "\n".join(wrong)


def is_up(room: str, target: str) -> bool:
    named = target in BELOW or target in PRODUCT
    return named and target not in (room, "pipeline") and target not in reachable(room)


def test_every_room_has_its_place() -> None:
    rooms = {path.name for path in (ROOT / "pipeline").iterdir() if any(path.glob("*.py"))}
    files = {path.stem for path in (ROOT / "pipeline").glob("*.py")} - {"__init__"}
    assert {f"pipeline.{name}" for name in rooms | files} <= BELOW.keys()


def test_imports_are_absolute() -> None:
    wrong = [f"{where}: relative import {module}" for where, _, module in imports() if module.startswith(".")]
    assert not wrong, "\n".join(wrong)


def test_small_rooms_know_few_libraries() -> None:
    wrong = []
    for where, room, module in imports():
        top = module.split(".")[0]
        if top in sys.stdlib_module_names or top in PRODUCT:
            continue
        if room in LIBRARIES and top not in LIBRARIES[room]:
            wrong.append(f"{where}: {room} may not import {top}")
        if room == "cuda" and where.partition(":")[0] not in CUDA_FILES.get(top, {where.partition(":")[0]}):
            wrong.append(f"{where}: {top} in a file of cuda that is not listed for it")
        elif top == "torch" and room not in TORCH_ROOMS and room != "cuda":
            wrong.append(f"{where}: {room} may not import torch")
    assert not wrong, "\n".join(wrong)


def test_an_upward_import_would_be_caught() -> None:
    assert is_up("pipeline.flow", "pipeline.store")
    assert is_up("cuda", "pipeline.store")
    assert is_up("pipeline.store", "stages")
    assert is_up("pipeline.session", "stages")
    assert not is_up("pipeline.session", "pipeline.rows")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("pipeline", ["numpy", "torch", "pydantic"]),
        ("pipeline.files", ["numpy", "torch", "pydantic"]),
        ("pipeline.flow", ["numpy", "torch"]),
        ("pipeline.config", ["numpy", "torch"]),
        ("pipeline.replica", ["torch"]),
        ("pipeline.rowlog", ["torch"]),
    ],
)
def test_a_fresh_interpreter_loads_no_more_than_needed(module: str, absent: list[str]) -> None:
    run(f"import sys, {module}\nloaded = [name for name in {absent} if name in sys.modules]\nassert not loaded, loaded")


def test_cuda_has_no_init_and_none_of_nvidias_names() -> None:
    assert not (ROOT / "cuda" / "__init__.py").exists()
    assert not NVIDIA_NAMES & {path.stem for path in (ROOT / "cuda").iterdir()}


@pytest.mark.parametrize("theirs_first", [True, False])
def test_cuda_is_shared_with_nvidias_packages(tmp_path: Path, theirs_first: bool) -> None:
    path = [str(ROOT), str(nvidia_portion(tmp_path))]
    run("import cuda.bindings, cuda.plan", path[::-1] if theirs_first else path)


def nvidia_portion(folder: Path) -> Path:
    """Where ``cuda.bindings`` can be imported from: the real one, or a stand-in shaped like it where that is not installed."""
    spec = importlib.util.find_spec("cuda.bindings")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parents[2]
    (folder / "cuda" / "bindings").mkdir(parents=True)
    (folder / "cuda" / "bindings" / "__init__.py").touch()
    return folder


def test_no_tool_is_named_like_a_standard_module() -> None:
    taken = [
        str(path)
        for path in (*(ROOT / "tools").rglob("*.py"), *ROOT.glob("*.py"))
        if path.stem in sys.stdlib_module_names
    ]
    assert not taken


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]


def run(code: str, path: list[str] | None = None) -> None:
    """Run ``code`` in a fresh interpreter."""
    found = {"PYTHONPATH": os.pathsep.join(path)} if path is not None else {}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **found}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_folder_has_a_readme_or_is_told_of_in_the_one_above() -> None:
    """A folder without one is named, as ``folder/``, by the nearest README above it."""
    missing = [
        str(folder.relative_to(ROOT))
        for top in ("pipeline", "stages", "cuda", "configs", "tools", "tests")
        for folder in sorted({file.parent for suffix in ("py", "yaml") for file in (ROOT / top).rglob(f"*.{suffix}")})
        if not _is_told_of(folder)
    ]
    assert missing == []
    assert not _is_told_of(ROOT / "pipeline" / "nowhere")


def _is_told_of(folder: Path) -> bool:
    if (folder / "README.md").exists():
        return True
    above = next(parent for parent in folder.parents if (parent / "README.md").exists())
    return above != ROOT and f"{folder.name}/" in (above / "README.md").read_text(encoding="utf-8")
