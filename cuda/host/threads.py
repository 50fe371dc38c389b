"""Numba's threading layer: one that is safe when several lanes compute at once, or an error that says what to install.

Numba's default layer may be ``workqueue``, which aborts the process when two threads enter parallel loops at once. ``tbb`` comes
first: its workers are shared by all lanes, where ``omp`` gives every lane a team of its own that spins between two loops.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import threading
from pathlib import Path

from cuda.errors import NoThreadingLayer
from cuda.host.numba_types import runtime

SAFE_LAYERS = ("tbb", "omp")
_SET = threading.local()
"""What each thread was last told: telling it again takes ten microseconds."""


def choose_layer() -> None:
    """Tell Numba which layers to try. Must run before the first parallel loop of the process; changes nothing after it."""
    if runtime.config.THREADING_LAYER in ("default", "threadsafe", "safe"):
        load_tbb()
        runtime.config.THREADING_LAYER_PRIORITY = [*SAFE_LAYERS, "workqueue"]


def load_tbb() -> None:
    """Load the TBB that pip installed: it lies outside the linker's path, where Numba would not find it."""
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == "libtbb.so.12":
            path = Path(str(file.locate()))
            if path.exists():
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def require_safe_layer() -> str:
    """The name of the layer in use. Raises NoThreadingLayer unless it is safe. Call after a parallel loop has run."""
    layer = str(runtime.threading_layer())
    if layer not in SAFE_LAYERS:
        raise NoThreadingLayer(layer, f"tried {', '.join(SAFE_LAYERS)}")
    return layer


def use_threads(threads: int) -> None:
    """Let the calling thread's parallel loops use this many threads, or all there are."""
    if getattr(_SET, "threads", None) != threads:
        runtime.set_num_threads(min(threads, runtime.config.NUMBA_NUM_THREADS))
        _SET.threads = threads
