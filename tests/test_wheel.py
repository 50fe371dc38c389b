"""What an installed wheel carries. It is built once, from a copy, so that nothing is left in the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.test_layering import ROOT, nvidia_portion

CARRIED = ("pipeline", "stages", "cuda", "configs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*CARRIED, "tests", "tools"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
    ]
    done = subprocess.run([*build, str(out), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as they lie in site-packages."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_it_carries_the_product_and_neither_tests_nor_tools(installed: Path) -> None:
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == set(CARRIED)


@pytest.mark.parametrize("suffix", [".py", ".yaml", ".cu", ".json"])
def test_no_file_of_the_product_is_left_out(installed: Path, suffix: str) -> None:
    for name in CARRIED:
        here = {path.relative_to(ROOT) for path in (ROOT / name).rglob(f"*{suffix}")}
        there = {path.relative_to(installed) for path in (installed / name).rglob(f"*{suffix}")}
        assert there == here


def test_the_stages_and_the_command_are_registered(installed: Path) -> None:
    (text,) = (path.read_text() for path in installed.glob("*.dist-info/entry_points.txt"))
    assert "[rowstream.stages]" in text
    assert "prefetch = stages.prefetch:Prefetch" in text
    assert "rowstream = pipeline.cli:main" in text


def test_shipped_configs_are_found_from_anywhere(installed: Path, tmp_path: Path) -> None:
    code = "from pipeline.config import finding; assert finding.SHIPPED.is_relative_to({!r}), finding.SHIPPED"
    run_installed(code.format(str(installed)), tmp_path, installed)


def test_cuda_is_shared_with_nvidias_packages(installed: Path, tmp_path: Path) -> None:
    code = "import cuda.bindings, cuda.plan; assert cuda.plan.__file__.startswith({!r}), cuda.plan.__file__"
    run_installed(code.format(str(installed)), tmp_path, installed, nvidia_portion(tmp_path))


def test_bench_says_that_it_needs_a_checkout(installed: Path, tmp_path: Path) -> None:
    code = "from pipeline.cli import main\ntry: main(['bench'])\nexcept SystemExit as left: assert left.code == 2, left.code"
    assert "come with a checkout" in " ".join(run_installed(code, tmp_path, installed).split())


def run_installed(code: str, folder: Path, *path: Path) -> str:
    """What ``code`` writes to stderr, run in ``folder`` with the wheel's files on the path and every checkout off it."""
    kept = "[path for path in sys.path if not os.path.exists(os.path.join(path, 'tools', 'bench'))]"
    without = f"import os, sys\nsys.path[:] = {kept}\n"
    done = subprocess.run(
        [sys.executable, "-c", without + code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
