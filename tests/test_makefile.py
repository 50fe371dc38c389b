"""What the targets of the Makefile would do in a fresh clone: who trains installs no peer, and who tests installs them all, pinned."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def planned(target: str, venv: Path) -> str:
    """The commands, none of which is run."""
    command = ["make", "--dry-run", f"VENV={venv}", f"PYTHON={sys.executable}", target]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout


def peers(commands: str) -> list[str]:
    found = re.search(r"--no-deps (.*)", commands)
    return found[1].split() if found else []


def test_a_run_installs_no_peer(tmp_path: Path) -> None:
    commands = planned("run", tmp_path / "venv")
    assert "pip install" in commands
    assert "configs/quickstart.yaml" in commands
    assert peers(commands) == []
    assert "[bench]" not in commands


@pytest.mark.parametrize("target", ["test", "tests", "long"])
def test_tests_install_every_peer_at_its_tested_version(tmp_path: Path, target: str) -> None:
    named = peers(planned(target, tmp_path / "venv"))
    assert {"torchrec", "fbgemm-gpu-cpu", "rocksdict"} <= set(named)
    pins = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert set(named) <= pins
