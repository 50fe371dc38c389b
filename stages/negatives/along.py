"""What goes along with an id besides it, as whole numbers that drawers remember: identities, then metadata, 8 bytes a number.

n ids; w numbers of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from stages.items import FeatureIds, Int64s

WORD_BYTES = 8


def num_words(bags: FeatureIds) -> int:
    return sum(_words(part) for part in _parts(bags) if part is not None)


def words_of(bags: FeatureIds) -> Int64s:
    """[w, n]"""
    found = [np.zeros((0, bags.ids_n.shape[0]), np.int64)]
    for part in _parts(bags):
        if part is not None:
            width = _width(part)
            bytes_nb = np.zeros((part.shape[0], _words(part) * WORD_BYTES), np.uint8)
            bytes_nb[:, :width] = np.ascontiguousarray(part).view(np.uint8).reshape(part.shape[0], width)
            found.append(bytes_nb.view(np.int64).T)
    return np.concatenate(found)


def from_words(words_wn: Int64s, like: FeatureIds) -> tuple[npt.NDArray[Any] | None, npt.NDArray[Any] | None]:
    """Identities and metadata of ids with these numbers, of the kinds that ``like`` has."""
    found: list[npt.NDArray[Any] | None] = []
    start = 0
    for part in _parts(like):
        if part is None:
            found.append(None)
            continue
        width, stop = _width(part), start + _words(part)
        bytes_nb = np.ascontiguousarray(words_wn[start:stop].T).view(np.uint8)
        values = np.ascontiguousarray(bytes_nb[:, :width]).view(part.dtype)
        found.append(values.reshape(words_wn.shape[1], part.shape[1]))
        start = stop
    return found[0], found[1]


def _parts(bags: FeatureIds) -> tuple[npt.NDArray[Any] | None, npt.NDArray[Any] | None]:
    return bags.identities_nk, bags.metadata_nm


def _width(part: npt.NDArray[Any]) -> int:
    """Bytes of a line."""
    return int(part.dtype.itemsize * part.shape[1])


def _words(part: npt.NDArray[Any]) -> int:
    return -(-_width(part) // WORD_BYTES)
