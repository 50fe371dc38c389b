"""What stands around the kernels: threads, the cache on disk, memory, warming up."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cuda.errors import NoThreadingLayer, PoolTooLarge
from cuda.host import memory, recycle, threads, warm_up
from cuda.host.cache import folder_stamp
from cuda.host.numba_types import runtime
from cuda.host.tables import stride_for

ROOT = Path(__file__).resolve().parents[2]


def python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter in the checkout; its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_threading_layer_is_one_that_several_lanes_may_enter() -> None:
    warm_up(print)
    assert threads.require_safe_layer() in threads.SAFE_LAYERS


def test_an_unsafe_layer_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "threading_layer", lambda: "workqueue")
    with pytest.raises(NoThreadingLayer, match=r"'workqueue', which aborts .*pip install tbb"):
        threads.require_safe_layer()


def test_warming_up_announces_only_what_is_not_on_disk() -> None:
    warm_up(print)
    announced: list[str] = []
    warm_up(announced.append)
    assert announced == []


def test_a_kernel_is_stale_when_any_file_of_its_folder_changed(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text("one")
    (tmp_path / "helpers.py").write_text("two")
    before = folder_stamp(tmp_path)
    folder_stamp.cache_clear()
    assert folder_stamp(tmp_path) == before
    (tmp_path / "helpers.py").write_text("three")
    folder_stamp.cache_clear()
    assert folder_stamp(tmp_path) != before


def test_a_read_only_checkout_caches_elsewhere(tmp_path: Path) -> None:
    """The places are tried in turn; here only the last can be written."""
    code = """
        import os, pathlib, tempfile
        from cuda.host import cache
        from cuda.host.numba_types import runtime
        for place in (cache._InTree, cache._UserWide):
            place.ensure_cache_path = lambda self: (_ for _ in ()).throw(PermissionError("read-only"))
        def function(): return 1
        function.__code__ = function.__code__.replace(co_filename=cache.__file__)
        found = cache.FolderCacheLocator.from_function(function, cache.__file__)
        path = pathlib.Path(found.get_cache_path())
        print(path.is_relative_to(tempfile.gettempdir()), oct(path.parent.stat().st_mode & 0o777))
    """
    assert python(code, TMPDIR=str(tmp_path), NUMBA_CACHE_DIR="").split() == ["True", "0o700"]


def test_importing_the_host_backend_compiles_nothing() -> None:
    code = """
        from cuda.host.compiled import KERNELS
        import cuda.host
        print(len(KERNELS), sum(len(kernel.signatures) for kernel in KERNELS))
    """
    count, compiled = python(code).split()
    assert int(count) > 5
    assert compiled == "0"


def test_nvidias_part_of_the_namespace_and_ours_live_side_by_side(tmp_path: Path) -> None:
    """``cuda`` is a namespace of several distributions; an ``__init__.py`` in ours would hide the others."""
    assert not (ROOT / "cuda" / "__init__.py").exists()
    (tmp_path / "cuda" / "bindings").mkdir(parents=True)
    (tmp_path / "cuda" / "bindings" / "__init__.py").write_text("owner = 'another distribution'")
    code = "import cuda.bindings, cuda.plan; print(cuda.bindings.owner, cuda.plan.SUM)"
    for order in (f"{tmp_path}{os.pathsep}{ROOT}", f"{ROOT}{os.pathsep}{tmp_path}"):
        assert python(code, PYTHONPATH=order).strip() == "another distribution 0"


def test_the_pool_starts_on_a_page_and_is_zeroed() -> None:
    rows = memory.allocate(1000, 320)
    assert rows.shape == (1000, 320)
    assert rows.ctypes.data % 4096 == 0
    assert not rows.any()
    rows[:] = 0xAB


def test_a_pool_beyond_free_memory_is_refused_with_what_fits() -> None:
    with pytest.raises(PoolTooLarge, match="rows would fit") as caught:
        memory.allocate(1 << 40, 256)
    assert 0 < caught.value.rows_that_fit <= memory.available_bytes() // 256 + 1024 * 1024


@pytest.mark.parametrize(("row_bytes", "stride"), [(16, 16), (80, 80), (256, 256), (272, 320), (1040, 1088)])
def test_rows_lie_on_whole_cache_lines_where_that_is_cheap(row_bytes: int, stride: int) -> None:
    assert stride_for(row_bytes) == stride


def test_memory_is_used_again_only_when_nobody_holds_it() -> None:
    recycler = recycle.Recycler()
    first, second = recycler.arrays((np.int64, 1000), (np.float32, 77))
    assert first.ctypes.data % 64 == second.ctypes.data % 64 == 0
    first[:] = 1
    kept, address = second[5:9], first.ctypes.data
    del first, second
    gc.collect()
    (other,) = recycler.arrays((np.int64, 1000))
    assert other.ctypes.data != address, "a view still holds the block"
    del kept
    gc.collect()
    (again,) = recycler.arrays((np.int64, 1030))
    assert again.ctypes.data == address


def test_idle_memory_is_bounded() -> None:
    recycler = recycle.Recycler(max_idle_bytes=1 << 16)
    arrays = [recycler.arrays((np.uint8, 1 << 14)) for _ in range(20)]
    del arrays
    gc.collect()
    assert recycler.idle_bytes <= 1 << 16
