"""The first cut that goes the general way does not wait for the compiler."""

from __future__ import annotations

import subprocess
import sys

COUNT = """
import threading
from numba.core.dispatcher import Dispatcher
from pipeline.stream import warm_up
from tests.stream.scenario import Life

life = Life(4, codec="int8", chunk_rows=400)  # its rows are not encoded where they lie
life.source.encodes = False
life.train()
warm_up()
late, compile_or_load = [], Dispatcher._compile_for_args

def tell(self, *args, **kinds):
    late.append(self.py_func.__qualname__)
    return compile_or_load(self, *args, **kinds)

Dispatcher._compile_for_args = tell
for _ in range(30):
    life.train()
    life.streamer.cut()
life.streamer.snapshot_cut()
assert life.streamer.counters.rows_streamed > 64, life.streamer.counters
print(sorted(set(late)))
"""


def test_cuts_load_no_kernel_that_warm_up_has_not() -> None:
    ran = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, timeout=300, check=False)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr
