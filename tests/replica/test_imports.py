"""A replica runs where there is no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
import pipeline.replica, pipeline.replica.command
heavy = sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'pyarrow', 'omegaconf', 'stages', 'cuda'})
upper = ('pipeline.session', 'pipeline.store', 'pipeline.models', 'pipeline.stream')
above = sorted(name for name in sys.modules if name.startswith(upper))
print(heavy + above)
"""


def test_a_fresh_interpreter_that_imports_the_replica_loads_no_torch_and_no_upper_room() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
