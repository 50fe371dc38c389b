"""The runtime loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("numpy", "torch", "numba", "pyarrow", "pipeline.rows", "pipeline.store")


def test_a_fresh_interpreter_that_imports_the_runtime_loads_no_numpy_and_no_torch() -> None:
    program = f"import sys, pipeline.flow; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
