"""How arrays enter compiled code: always C-contiguous, of one dtype, and read-only.

Numba compiles a kernel anew for each combination of layout and writability it meets; with inputs normalised here there
is one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def read_only(values: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """``values`` as a C-contiguous, read-only array of ``dtype``; shares memory where it can.

    Raises TypeError on a lossy cast.
    """
    array = np.asarray(values)
    if array.dtype != dtype:
        array = array.astype(dtype, casting="safe")
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def row_words(weights_nd: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint32], int]:
    """The words from the first of float32 [n, dim], neither of which is 0, to the last, gaps included, and the distance of rows in words.

    Rows that are contiguous are not copied.
    """
    count, dim = weights_nd.shape
    step, item = weights_nd.strides
    if (dim > 1 and item != 4) or (count > 1 and (step % 4 != 0 or step < 4 * dim)):
        weights_nd = np.ascontiguousarray(weights_nd)
        step = 4 * dim
    stride = step // 4 if count > 1 else dim
    span: npt.NDArray[Any] = np.lib.stride_tricks.as_strided(
        weights_nd, ((count - 1) * stride + dim,), (4,), writeable=False
    )
    return span.view(np.uint32), stride


def read_only_ids(ids_n: Any) -> npt.NDArray[np.int64]:
    """Ids as int64 [n], read-only. Raises TypeError for what is not integers, ValueError for another shape."""
    array = read_only(ids_n, np.int64) if np.size(ids_n) else read_only(np.empty(np.shape(ids_n), np.int64), np.int64)
    if array.ndim != 1:
        raise ValueError(f"ids are one-dimensional; got shape {array.shape}")
    return array
