"""Bulk operations of the slot machine, compiled. They hold no lock and keep no state.

Legend: S slots; M slots of one call, distinct; Q entries of the victim queue; U distinct rows of a batch.
"""

from __future__ import annotations

import numpy as np

from pipeline.rows.native import ask_for
from pipeline.store.compiled import kernel

BUCKETS = 4096
AHEAD = 32
"""Slots whose record is asked for ahead of its use: they lie anywhere in memory."""


@kernel
def transition(slots_m, states_s, pins_s, allowed, target, fewest, most, delta):  # type: ignore[no-untyped-def]
    """Change all slots or none: state into ``target`` (kept where below 0), pins by ``delta``.

    A slot passes when bit ``state`` of ``allowed`` is set and its pins lie in ``fewest..most``. Returns -1 - i for
    the first i that does not (those before it are as they were), else how many slots got their first pin (``delta``
    1) or lost their last one (-1). One walk over memory: slots that do not pass are bugs, so undoing may be slow.
    """
    count = slots_m.shape[0]
    records, stride = states_s.ctypes.data, np.int64(states_s.strides[0])
    before_m = np.empty(count, dtype=np.uint8)
    crossed, edge = 0, max(delta, 0)
    for i in range(count):
        ask_for(records + np.int64(slots_m[min(i + AHEAD, count - 1)]) * stride)
        slot = slots_m[i]
        fits = 0 <= slot < states_s.shape[0]
        if fits:
            fits = (allowed >> states_s[slot]) & 1 != 0 and fewest <= pins_s[slot] <= most
        if not fits:
            for done in range(i):
                states_s[slots_m[done]] = before_m[done]
                pins_s[slots_m[done]] -= delta
            return -1 - i
        before_m[i] = states_s[slot]
        if target >= 0:
            states_s[slot] = target
        if delta != 0:
            pins_s[slot] += delta
            if pins_s[slot] == edge:
                crossed += 1
    return crossed


@kernel
def mark_hits(slots_u, pins_s, marks_s, token):  # type: ignore[no-untyped-def]
    """Mark the slots of hits (-1: a miss) with ``token``; returns how many of them have no pin."""
    idle = 0
    for u in range(slots_u.shape[0]):
        slot = slots_u[u]
        if slot >= 0:
            marks_s[slot] = token
            if pins_s[slot] == 0:
                idle += 1
    return idle


@kernel
def touch(slots_u, last_use_s, uses_s, step):  # type: ignore[no-untyped-def]
    """Count one more use of each slot, by ``step``."""
    for u in range(slots_u.shape[0]):
        slot = slots_u[u]
        last_use_s[slot] = step
        uses_s[slot] += 1


@kernel
def select_lowest(scores_s, states_s, pins_s, first_state, want):  # type: ignore[no-untyped-def]
    """Unpinned slots in state ``first_state`` or above that have the lowest scores: int32, at least ``want`` (all
    when there are fewer) and, of those beyond, only such as share the last one's bucket of scores. In order of slot,
    not of score.

    Pins are read once: they may fall while this runs.
    """
    eligible = np.empty(states_s.shape[0], dtype=np.int32)
    count = 0
    low, high = 0.0, 0.0
    for slot in range(states_s.shape[0]):
        if states_s[slot] >= first_state and pins_s[slot] == 0:
            score = float(scores_s[slot])
            if count == 0:
                low, high = score, score
            low, high = min(low, score), max(high, score)
            eligible[count] = slot
            count += 1
    if count <= want:
        return eligible[:count].copy()
    scale = (BUCKETS - 1) / max(high - low, 1.0)
    sizes = np.zeros(BUCKETS, dtype=np.int64)
    for i in range(count):
        sizes[int((float(scores_s[eligible[i]]) - low) * scale)] += 1
    last, total = 0, sizes[0]
    while total < want:
        last += 1
        total += sizes[last]
    chosen = np.empty(total, dtype=np.int32)
    kept = 0
    for i in range(count):
        if int((float(scores_s[eligible[i]]) - low) * scale) <= last:
            chosen[kept] = eligible[i]
            kept += 1
    return chosen


@kernel
def take_victims(  # type: ignore[no-untyped-def]
    queue_q, last_use_q, next_use_q, head, states_s, pins_s, last_use_s, next_use_s, marks_s, token, first_state, out
):
    """Fill ``out`` from the queue with slots that are still unpinned, untouched since the queue was made, and not
    marked.

    Returns (the new head, how many were found).
    """
    found = 0
    while head < queue_q.shape[0] and found < out.shape[0]:
        slot = queue_q[head]
        head += 1
        if states_s[slot] < first_state or pins_s[slot] != 0 or marks_s[slot] == token:
            continue
        if last_use_s[slot] == last_use_q[head - 1] and next_use_s[slot] == next_use_q[head - 1]:
            out[found] = slot
            found += 1
    return head, found


@kernel
def find_in_state(queue_q, start, stop, states_s, pins_s, state, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the unpinned slots of ``queue_q[start:stop]`` in ``state``. Returns (where it stopped, how
    many).
    """
    found = 0
    while start < stop and found < out.shape[0]:
        slot = queue_q[start]
        start += 1
        if states_s[slot] == state and pins_s[slot] == 0:
            out[found] = slot
            found += 1
    return start, found
