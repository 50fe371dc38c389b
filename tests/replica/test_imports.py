"""A replica runs where there is no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
import pipeline.replica, pipeline.replica.command
heavy = sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'pyarrow', 'omegaconf', 'stages', 'cuda'})
upper = ('pipeline.session', 'pipeline.store', 'pipeline.models', 'pipeline.stream')
above = sorted(name for name in sys.modules if name.startswith(upper))
print(heavy + above)
"""


def test_a_fresh_interpreter_that_imports_the_replica_loads_no_torch_and_no_upper_room() -> None:
    assert run(PROGRAM) == "[]"


FROM_THE_TOP = """
import sys
import pipeline
assert not {'numpy', 'numba', 'torch'} & sys.modules.keys()
replica = pipeline.Replica
import pipeline.replica.replica
assert replica is pipeline.replica.replica.Replica
print('torch' in sys.modules)
"""


def test_the_package_gives_the_replica_when_it_is_asked_for_and_loads_no_torch() -> None:
    assert run(FROM_THE_TOP) == "False"


def test_every_name_that_the_room_promises_is_there() -> None:
    import pipeline.replica as room

    assert {name for name in room.__all__ if getattr(room, name).__name__ == name} == set(room.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Replicas'"):
        room.Replicas  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'Replicas'"):
        pipeline.Replicas  # noqa: B018


def run(program: str) -> str:
    """What it prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
