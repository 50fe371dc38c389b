"""Bulk operations of the slot machine, compiled. They hold no lock and keep no state.

Legend: S slots; M slots of one call, distinct; Q entries of the victim queue; U distinct rows of a batch.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from pipeline.rows.native import ask_for
from pipeline.store.compiled import device, kernel, parallel_kernel

BUCKETS = 4096
AHEAD = 32
"""Slots whose record is asked for ahead of its use: they lie anywhere in memory."""


@device
def _change_some(slots_m, states_s, pins_s, last_use_s, uses_s, rule, before_m, first, last):  # type: ignore[no-untyped-def]
    """``transition`` for the slots first .. last, up to one that does not pass. Returns (where it stopped, how many
    crossed).
    """
    allowed, target, fewest, most, delta, step = rule
    records, stride = states_s.ctypes.data, np.int64(states_s.strides[0])
    crossed, edge = 0, max(delta, 0)
    for i in range(first, last):
        ask_for(records + np.int64(slots_m[min(i + AHEAD, last - 1)]) * stride)
        slot = slots_m[i]
        if not 0 <= slot < states_s.shape[0]:
            return i, crossed
        state, pins = states_s[slot], pins_s[slot]
        if (allowed >> state) & 1 == 0 or not fewest <= pins <= most:
            return i, crossed
        before_m[i] = last_use_s[slot] << 2 | state
        if target >= 0:
            states_s[slot] = target
        if delta != 0:
            pins_s[slot] = pins + delta
            crossed += pins + delta == edge
        if step >= 0:
            last_use_s[slot] = step
            uses_s[slot] += 1
    return last, crossed


@device
def _undo_some(slots_m, states_s, pins_s, last_use_s, uses_s, rule, before_m, first, last):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        slot = slots_m[i]
        states_s[slot] = before_m[i] & 3
        pins_s[slot] -= rule[4]
        if rule[5] >= 0:
            last_use_s[slot] = before_m[i] >> 2
            uses_s[slot] -= 1


@kernel
def transition_few(slots_m, states_s, pins_s, last_use_s, uses_s, rule, before_m):  # type: ignore[no-untyped-def]
    """``transition`` on the calling thread."""
    count = slots_m.shape[0]
    stop, crossed = _change_some(slots_m, states_s, pins_s, last_use_s, uses_s, rule, before_m, 0, count)
    if stop == count:
        return crossed
    _undo_some(slots_m, states_s, pins_s, last_use_s, uses_s, rule, before_m, 0, stop)
    return -1 - stop


@parallel_kernel
def transition(slots_m, states_s, pins_s, last_use_s, uses_s, rule, before_m, threads):  # type: ignore[no-untyped-def]
    """Change all slots or none. ``rule`` is (allowed, target, fewest, most, delta, step): state into ``target`` (kept
    where below 0), pins by ``delta``; unless ``step`` is below 0, one more use of each is counted, by ``step``.

    A slot passes when bit ``state`` of ``allowed`` is set and its pins lie in ``fewest..most``. Returns -1 - i for
    the first i that does not (all are as they were), else how many slots got their first pin (``delta`` 1) or lost
    their last one (-1). One walk over memory: slots that do not pass are bugs, so undoing may be slow. ``before_m``:
    room for what they were.
    """
    count = slots_m.shape[0]
    stops_w, crossed_w = np.empty(threads, np.int64), np.empty(threads, np.int64)
    for worker in prange(threads):
        first, last = count * worker // threads, count * (worker + 1) // threads
        stops_w[worker], crossed_w[worker] = _change_some(
            slots_m, states_s, pins_s, last_use_s, uses_s, rule, before_m, first, last
        )
    failed, crossed = -1, 0
    for worker in range(threads):
        crossed += crossed_w[worker]
        if failed < 0 and stops_w[worker] < count * (worker + 1) // threads:
            failed = stops_w[worker]
    if failed < 0:
        return crossed
    for worker in range(threads):
        first = count * worker // threads
        _undo_some(slots_m, states_s, pins_s, last_use_s, uses_s, rule, before_m, first, stops_w[worker])
    return -1 - failed


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
def score_by_use(last_use_s, uses_s, next_use_s, now, far, use_steps, most_uses, scores_s):  # type: ignore[no-untyped-def]
    """The score of each slot's row, as ``policy.Lookahead`` says: all of those needed ahead above all others."""
    above = now + 1 + use_steps * most_uses + far
    for slot in range(scores_s.shape[0]):
        ahead = next_use_s[slot] - now
        if ahead > 0:
            scores_s[slot] = above - min(ahead, far)
        else:
            scores_s[slot] = last_use_s[slot] + use_steps * min(max(np.int64(uses_s[slot]) - 1, 0), most_uses)


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


@kernel
def leave_held(slots_n, states_s, least):  # type: ignore[no-untyped-def]
    """Write -1 over slots in states below ``least``; returns how many are -1 then. Slots may repeat."""
    records, stride, away = states_s.ctypes.data, np.int64(states_s.strides[0]), 0
    for i in range(slots_n.shape[0]):
        ask_for(records + np.int64(slots_n[min(i + AHEAD, slots_n.shape[0] - 1)]) * stride)
        if slots_n[i] < 0 or states_s[slots_n[i]] < least:
            slots_n[i] = -1
            away += 1
    return away


@kernel
def all_held(slots_m, states_s, least):  # type: ignore[no-untyped-def]
    """Whether all slots are in state ``least`` or above."""
    records, stride = states_s.ctypes.data, np.int64(states_s.strides[0])
    held = True
    for i in range(slots_m.shape[0]):
        ask_for(records + np.int64(slots_m[min(i + AHEAD, slots_m.shape[0] - 1)]) * stride)
        held &= states_s[slots_m[i]] >= least
    return held
