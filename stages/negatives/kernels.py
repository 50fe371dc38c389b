"""Draws negatives: positions or ids, by rejection, each a pure function of (key, position of the positive, number of the draw).

B positives and k draws each; m candidates; n ids of the positives. What is drawn never is one of the positive's own ids.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from stages.items import Int64s
from stages.mixing import mix, signed

Bools = npt.NDArray[np.bool_]
TRIES = 16
"""Rejections before the candidates are gone through one by one."""
EMPTY = -1
RESERVOIR = np.uint64(0x5E5E701)


@njit(nogil=True, cache=True)
def _is_own(candidate: int, own_n: Int64s, start: int, stop: int) -> bool:
    for n in range(start, stop):  # noqa: SIM110 - Numba compiles no generator
        if own_n[n] == candidate:
            return True
    return False


@njit(nogil=True, cache=True)
def _draw(key: np.uint64, candidates_m: Int64s, low: int, high: int, own_n: Int64s, start: int, stop: int) -> int:
    """A position in low..high-1 whose candidate is none of the own ids, -1 if there is none."""
    if high <= low:
        return EMPTY
    span = np.uint64(high - low)
    for t in range(TRIES):
        at = low + signed(mix(key, np.uint64(t)) % span)
        if not _is_own(candidates_m[at], own_n, start, stop):
            return at
    begin = signed(mix(key, np.uint64(TRIES)) % span)
    for step in range(high - low):
        at = low + (begin + step) % (high - low)
        if not _is_own(candidates_m[at], own_n, start, stop):
            return at
    return EMPTY


@njit(nogil=True, cache=True)
def draw_from_window(
    key: np.uint64,
    first: int,
    window: int,
    candidates_m: Int64s,
    ends_b: Int64s,
    own_n: Int64s,
    offsets_b: Int64s,
    wanted_b: Bools,
    picks_bk: Int64s,
) -> None:
    """Positive b draws among the last ``window`` candidates before ``ends_b[b]``. ``picks_bk`` gets positions or -1."""
    for b in range(picks_bk.shape[0]):
        sample = mix(key, np.uint64(first + b))
        low = max(0, ends_b[b] - window)
        for k in range(picks_bk.shape[1]):
            picks_bk[b, k] = EMPTY
            if wanted_b[b]:
                draw = mix(sample, np.uint64(k))
                picks_bk[b, k] = _draw(draw, candidates_m, low, ends_b[b], own_n, offsets_b[b], offsets_b[b + 1])


@njit(nogil=True, cache=True)
def find_known(table: Int64s, known_m: Int64s, wanted: int) -> int:
    """The cell of ``table`` that holds the position of ``wanted`` in ``known_m``, or the empty cell where it belongs."""
    mask = np.uint64(table.shape[0] - 1)
    cell = mix(np.uint64(0), np.uint64(wanted)) & mask
    while table[cell] != EMPTY and known_m[table[cell]] != wanted:
        cell = (cell + np.uint64(1)) & mask
    return signed(cell)


@njit(nogil=True, cache=True)
def _forget(table: Int64s, known_m: Int64s, gone: int) -> None:
    """Empty the cell of ``gone`` and move later cells of its chain up."""
    mask = np.uint64(table.shape[0] - 1)
    hole = np.uint64(find_known(table, known_m, gone))
    cell = (hole + np.uint64(1)) & mask
    while table[cell] != EMPTY:
        home = mix(np.uint64(0), np.uint64(known_m[table[cell]])) & mask
        if ((cell - home) & mask) >= ((cell - hole) & mask):
            table[hole] = table[cell]
            hole = cell
        cell = (cell + np.uint64(1)) & mask
    table[hole] = EMPTY


@njit(nogil=True, cache=True)
def _remember(key: np.uint64, table: Int64s, known_m: Int64s, counts: Int64s, new: int) -> np.int64:
    """The place where ``new`` is kept, -1 when it is known already or not kept. ``counts``: kept now, admitted ever.

    A full memory is a reservoir: a new id takes a random place with probability capacity / admitted.
    """
    cell = find_known(table, known_m, new)
    if table[cell] != EMPTY:
        return np.int64(EMPTY)
    counts[1] += 1
    place = counts[0]
    if place == known_m.shape[0]:
        place = signed(mix(key, np.uint64(counts[1])) % np.uint64(counts[1]))
        if place >= known_m.shape[0]:
            return np.int64(EMPTY)
        _forget(table, known_m, known_m[place])
        cell = find_known(table, known_m, new)
    else:
        counts[0] += 1
    known_m[place] = new
    table[cell] = place
    return place  # type: ignore[no-any-return]


@njit(nogil=True, cache=True)
def draw_from_seen(
    key: np.uint64,
    first: int,
    table: Int64s,
    known_m: Int64s,
    known_am: Int64s,
    counts: Int64s,
    own_n: Int64s,
    own_an: Int64s,
    offsets_b: Int64s,
    wanted_b: Bools,
    picked_bk: Bools,
    drawn_bk: Int64s,
    drawn_abk: Int64s,
) -> None:
    """Positive b draws among the ids of the positives before it, then its own ids are remembered.

    What goes along with an id is kept beside it: ``known_am`` and ``own_an`` [a, ...], ``drawn_abk`` for the drawn.
    """
    for b in range(drawn_bk.shape[0]):
        if not wanted_b[b]:
            continue
        sample = mix(key, np.uint64(first + b))
        for k in range(drawn_bk.shape[1]):
            at = _draw(mix(sample, np.uint64(k)), known_m, 0, counts[0], own_n, offsets_b[b], offsets_b[b + 1])
            picked_bk[b, k] = at != EMPTY
            if at != EMPTY:
                drawn_bk[b, k] = known_m[at]
                for a in range(known_am.shape[0]):
                    drawn_abk[a, b, k] = known_am[a, at]
        for n in range(offsets_b[b], offsets_b[b + 1]):
            place = _remember(key ^ RESERVOIR, table, known_m, counts, own_n[n])
            if place != EMPTY:
                for a in range(known_am.shape[0]):
                    known_am[a, place] = own_an[a, n]


@njit(nogil=True, cache=True)
def fill_table(table: Int64s, known_m: Int64s) -> None:
    """Enter all ids of ``known_m``, which are distinct, into an empty table."""
    for m in range(known_m.shape[0]):
        table[find_known(table, known_m, known_m[m])] = m
