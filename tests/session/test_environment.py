"""The environment that exactness needs is pinned before torch loads, or whoever is too late is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pipeline.session.environment import PINNED

ROOT = Path(__file__).resolve().parents[2]


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in PINNED}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**inherited, **env}, capture_output=True, text=True, check=False
    )


def test_what_is_not_set_is_pinned_and_what_is_set_stays() -> None:
    code = "\n".join(
        (
            "import json, os",
            "from pipeline.session.environment import pin",
            "pin()",
            "import torch",
            "pin()",
            "print(json.dumps(dict(os.environ)))",
        )
    )
    done = python(code, KMP_BLOCKTIME="1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: found[name] for name in PINNED} == {**PINNED, "KMP_BLOCKTIME": "1"}


def test_who_loaded_torch_first_is_told_what_is_missing() -> None:
    done = python("import torch\nfrom pipeline.session.environment import pin\npin()")
    assert done.returncode == 1
    assert "torch is already loaded" in done.stderr
    assert all(name in done.stderr for name in PINNED)
