"""Random reads, compiled: requests sorted into runs, and the threads that read them.

Rules.

1. A run is some neighbouring requests of one file that one ``pread`` serves. A batch of runs is a job; it has a slot while it runs.
2. Everything in ``jobs_jf`` and ``shared_s`` is read and written under the one lock, except that the fields of a job which say where
   its arrays are do not change while the slot is open, and it stays open until all of its runs are done.
3. A thread takes one run at a time, from the open jobs in turn: a job's share does not depend on how many runs it has.
4. ``shared_s[IDLE]`` is how many threads wait and are promised to nobody. Whoever adds a job takes from it as many as it wakes, under
   the lock; a thread looks for work under the lock before it waits. So no wake-up is lost, and none is sent for nothing.
5. A run that failed ends its job: no more of its runs are taken. Of several failures the first in order of (fd, offset) is kept.

Legend: n requests; r runs; j slots; f fields of a job; s shared numbers. Addresses are int64. ``align`` is 1, or the block to whose
bounds reads are widened.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from pipeline.rowlog.read_native import (
    PLACE_BYTES,
    copy_bytes,
    errno_address,
    load_int32,
    load_int64,
    lock,
    lock_init,
    pread,
    semaphore_init,
    semaphore_post,
    semaphore_wait,
    unlock,
)

# fields of a job
OPEN, NEXT, TOTAL, RUNNING, FAILED_AT, FAILED_ERRNO, FAILED_GOT = 0, 1, 2, 3, 4, 5, 6
FDS, OFFSETS, ORDER, FIRSTS, OUT, STRIDE, NUM_BYTES, ALIGN = 8, 9, 10, 11, 12, 13, 14, 15
NUM_FIELDS: Final = 16
# shared numbers; the lock, then the semaphore for work, then one semaphore a slot, are at LOCKS
STOP, IDLE, TURN, READS, BYTES, ROWS = 0, 1, 2, 3, 4, 5
LOCKS, PLACE = 8, PLACE_BYTES // 8
NEVER: Final = np.iinfo(np.int64).max
LAST_OFFSET: Final = 1 << 62
ALL_FIT, OTHERS = -1, -2
EINTR: Final = 4


def shared_numbers(num_slots: int) -> int:
    """The length of ``shared_s``."""
    return LOCKS + (2 + num_slots) * PLACE


@njit(nogil=True, cache=True)
def sort_keys(fds_n, offsets_n, nbytes, keys_n):  # type: ignore[no-untyped-def]
    """Write keys that sort as (fd, offset) does. Returns ALL_FIT, OTHERS where keys do not, or the first request that no file has."""
    fits = True
    for n in range(fds_n.shape[0]):
        fd, offset = np.int64(fds_n[n]), offsets_n[n]
        if offset < 0 or offset > LAST_OFFSET - nbytes:
            return n
        if fd < 0 or fd >= 1 << 20 or offset >= 1 << 43:
            fits = False
        keys_n[n] = fd << 43 | offset
    return ALL_FIT if fits else OTHERS


@njit(nogil=True, cache=True)
def plan_runs(fds_n, offsets_n, order_n, nbytes, align, gap, most, firsts_r):  # type: ignore[no-untyped-def]
    """Cut the ordered requests into runs: ``firsts_r`` int64 [n + 1] gets where in ``order_n`` each begins, and the end.

    A run spans at most ``most`` bytes, unless it is a single request. Returns how many there are.
    """
    runs, fd, begin, end = 0, np.int64(-1), np.int64(0), np.int64(0)
    for at in range(order_n.shape[0]):
        n = order_n[at]
        low = offsets_n[n] // align * align
        high = (offsets_n[n] + nbytes + align - 1) // align * align
        if at == 0 or fds_n[n] != fd or low > end + gap or high - begin > most:
            firsts_r[runs] = at
            runs += 1
            fd, begin = np.int64(fds_n[n]), low
        end = high
    firsts_r[runs] = order_n.shape[0]
    return runs


@njit(nogil=True, cache=True)
def prepare(shared_s, num_slots):  # type: ignore[no-untyped-def]
    """Make the lock and the semaphores. Once, before any thread."""
    place = shared_s.ctypes.data + 8 * LOCKS
    lock_init(place, 0)
    for semaphore in range(1, num_slots + 2):
        semaphore_init(place + semaphore * PLACE_BYTES, np.int32(0), np.uint32(0))


@njit(nogil=True, cache=True)
def _wait(semaphore):  # type: ignore[no-untyped-def]
    while semaphore_wait(semaphore) != 0:
        pass


@njit(nogil=True, cache=True)
def _wake(shared_s, the_lock, most):  # type: ignore[no-untyped-def]
    """Frees the lock, which the caller holds, and wakes threads that wait, at most as many as said."""
    count = min(shared_s[IDLE], most)
    shared_s[IDLE] -= count
    unlock(the_lock)
    for _ in range(count):
        semaphore_post(the_lock + PLACE_BYTES)


@njit(nogil=True, cache=True)
def run_job(jobs_jf, shared_s, slot):  # type: ignore[no-untyped-def]
    """Open a slot whose fields are filled, and wait until all its runs are done, or one failed and no other is under way."""
    the_lock = shared_s.ctypes.data + 8 * LOCKS
    lock(the_lock)
    jobs_jf[slot, OPEN] = 1
    _wake(shared_s, the_lock, jobs_jf[slot, TOTAL])
    _wait(the_lock + (2 + slot) * PLACE_BYTES)


@njit(nogil=True, cache=True)
def stop(shared_s):  # type: ignore[no-untyped-def]
    """Let the threads end when there is no work left."""
    the_lock = shared_s.ctypes.data + 8 * LOCKS
    lock(the_lock)
    shared_s[STOP] = 1
    _wake(shared_s, the_lock, NEVER)


@njit(nogil=True, cache=True)
def _next_job(jobs_jf, shared_s):  # type: ignore[no-untyped-def]
    """The slot whose turn it is among those with runs to take, or -1."""
    num_slots = jobs_jf.shape[0]
    for turn in range(num_slots):
        slot = (shared_s[TURN] + turn) % num_slots
        if jobs_jf[slot, OPEN] and jobs_jf[slot, NEXT] < jobs_jf[slot, TOTAL]:
            shared_s[TURN] = (slot + 1) % num_slots
            return slot
    return -1


@njit(nogil=True, cache=True)
def serve(jobs_jf, shared_s, buffer_b):  # type: ignore[no-untyped-def]
    """What a thread does for life: take runs and read them, through its own ``buffer_b``; wait when there are none."""
    the_lock = shared_s.ctypes.data + 8 * LOCKS
    lock(the_lock)
    while True:
        slot = _next_job(jobs_jf, shared_s)
        if slot >= 0:
            run = jobs_jf[slot, NEXT]
            jobs_jf[slot, NEXT] += 1
            jobs_jf[slot, RUNNING] += 1
            unlock(the_lock)
            done = _read_run(jobs_jf[slot], run, buffer_b.ctypes.data, buffer_b.shape[0])
            lock(the_lock)
            _enter(jobs_jf[slot], shared_s, done)
            if jobs_jf[slot, RUNNING] == 0 and jobs_jf[slot, NEXT] >= jobs_jf[slot, TOTAL]:
                jobs_jf[slot, OPEN] = 0
                semaphore_post(the_lock + (2 + slot) * PLACE_BYTES)
        elif shared_s[STOP]:
            unlock(the_lock)
            return
        else:
            shared_s[IDLE] += 1
            unlock(the_lock)
            _wait(the_lock + PLACE_BYTES)
            lock(the_lock)


@njit(nogil=True, cache=True)
def _enter(job_f, shared_s, done):  # type: ignore[no-untyped-def]
    """Enter what came of a run."""
    reads, num_bytes, rows, failed_at, errno, got = done
    shared_s[READS] += reads
    shared_s[BYTES] += num_bytes
    shared_s[ROWS] += rows
    job_f[RUNNING] -= 1
    if failed_at < job_f[FAILED_AT]:
        job_f[FAILED_AT], job_f[FAILED_ERRNO], job_f[FAILED_GOT] = failed_at, errno, got
        job_f[NEXT] = job_f[TOTAL]


@njit(nogil=True, cache=True)
def _read_run(job_f, run, buffer, buffer_bytes):  # type: ignore[no-untyped-def]
    """Read one run and lay its rows where they belong, a buffer's length at a time (one is enough for more than one request).

    Returns (reads, bytes, rows, failed_at, errno, got): where in the order the first request is whose bytes did not all come, with
    how many did; NEVER where there is none.
    """
    order, offsets, nbytes, align = job_f[ORDER], job_f[OFFSETS], job_f[NUM_BYTES], job_f[ALIGN]
    first, after = load_int64(job_f[FIRSTS] + 8 * run), load_int64(job_f[FIRSTS] + 8 * (run + 1))
    n = load_int64(order + 8 * first)
    fd, begin = load_int32(job_f[FDS] + 4 * n), load_int64(offsets + 8 * n)
    end = load_int64(offsets + 8 * load_int64(order + 8 * (after - 1))) + nbytes
    if align == 1 and after == first + 1:
        got, reads, errno = _read(fd, job_f[OUT] + job_f[STRIDE] * n, nbytes, begin, align)
        return reads, got, np.int64(got == nbytes), NEVER if got == nbytes else first, errno, got
    low, high, reads, num_bytes = begin // align * align, (end + align - 1) // align * align, 0, 0
    while True:
        length = min(buffer_bytes, high - low)
        got, more, errno = _read(fd, buffer, length, low, align)
        reads, num_bytes = reads + more, num_bytes + got
        for at in range(first, after):
            n = load_int64(order + 8 * at)
            offset = load_int64(offsets + 8 * n)
            copied, come = max(offset, low), min(offset + nbytes, low + got)
            if come > copied:
                copy_bytes(job_f[OUT] + job_f[STRIDE] * n + copied - offset, buffer + copied - low, come - copied)
            if offset + nbytes > low + got and got < length:
                return reads, num_bytes, at - first, at, errno, max(come - offset, 0)
        low += length
        if low >= high or got < length:
            return reads, num_bytes, after - first, NEVER, 0, 0


@njit(nogil=True, cache=True)
def _read(fd, to, num_bytes, offset, align):  # type: ignore[no-untyped-def]
    """``pread`` until all came, the file ended or it failed. Returns (bytes that came, calls, errno or 0)."""
    done, calls = 0, 0
    while done < num_bytes:
        got = pread(fd, to + done, num_bytes - done, offset + done)
        calls += 1
        if got < 0:
            errno = np.int64(load_int32(errno_address()))
            if errno != EINTR:
                return done, calls, errno
        else:
            done += got
            if got == 0 or done % align != 0:  # read past blocks, the file's last bytes come in no whole one
                break
    return done, calls, np.int64(0)
