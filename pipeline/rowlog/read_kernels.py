"""The threads that read runs, compiled.

Rules.

1. A batch of runs is a job; it has a slot while it runs.
2. Everything in ``jobs_jf`` and ``shared_s`` is read and written under the one lock, except that the fields of a job which say where
   its arrays are do not change while the slot is open, and it stays open until all of its runs are done.
3. A thread takes one run at a time, from the open jobs in turn: a job's share does not depend on how many runs it has.
4. ``shared_s[IDLE]`` is how many threads wait and are promised to nobody. Whoever adds a job takes from it as many as it wakes, under
   the lock, one for every ``shared_s[SHARE]`` runs; a thread looks for work under the lock before it waits. So no wake-up is lost.
5. A run that failed ends its job: no more of its runs are taken. Of several failures the first in order of (fd, offset) is kept.

Legend: j slots; f fields of a job; s shared numbers; d reads under way at once by one thread. Addresses are int64.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from pipeline.rowlog.read_native import (
    EINTR,
    IO_GETEVENTS,
    IO_SUBMIT,
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
    syscall,
    unlock,
)

# fields of a job
OPEN, NEXT, TOTAL, RUNNING, FAILED_AT, FAILED_ERRNO, FAILED_GOT = 0, 1, 2, 3, 4, 5, 6
FDS, OFFSETS, ORDER, FIRSTS, OUT, STRIDE, NUM_BYTES, ALIGN = 8, 9, 10, 11, 12, 13, 14, 15
NUM_FIELDS: Final = 16
# shared numbers; the lock, then the semaphore for work, then one semaphore a slot, are at LOCKS
STOP, IDLE, TURN, SHARE, READS, BYTES, ROWS = 0, 1, 2, 3, 4, 5, 6
LOCKS, PLACE = 8, PLACE_BYTES // 8
NEVER: Final = np.iinfo(np.int64).max
# the lists of a queue
FREE, POINTERS, SLOT, RUN = 0, 1, 2, 3
NUM_LISTS, BLOCK = 4, 64


def shared_numbers(num_slots: int) -> int:
    """The length of ``shared_s``."""
    return LOCKS + (2 + num_slots) * PLACE


@njit(nogil=True, cache=True)
def prepare(shared_s, num_slots, share):  # type: ignore[no-untyped-def]
    """Make the lock and the semaphores, for threads that have ``share`` reads under way each. Once, before any thread."""
    shared_s[SHARE] = share
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
    _wake(shared_s, the_lock, (jobs_jf[slot, TOTAL] + shared_s[SHARE] - 1) // shared_s[SHARE])
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
def _take(job_f):  # type: ignore[no-untyped-def]
    """The job's next run."""
    job_f[NEXT] += 1
    job_f[RUNNING] += 1
    return job_f[NEXT] - 1


@njit(nogil=True, cache=True)
def _wait_for_work(shared_s, the_lock):  # type: ignore[no-untyped-def]
    """Frees the lock, which the caller holds. False when the thread is to end."""
    if shared_s[STOP]:
        unlock(the_lock)
        return False
    shared_s[IDLE] += 1
    unlock(the_lock)
    _wait(the_lock + PLACE_BYTES)
    return True


@njit(nogil=True, cache=True)
def _finish(jobs_jf, shared_s, slot, run, buffer_b, come, calls):  # type: ignore[no-untyped-def]
    """Read what of a run did not come, and enter it; close the job and tell its caller when it was the last one."""
    the_lock, job_f = shared_s.ctypes.data + 8 * LOCKS, jobs_jf[slot]
    reads, num_bytes, rows, failed_at, errno, got = _read_run(job_f, run, buffer_b, come, calls)
    lock(the_lock)
    shared_s[READS] += reads
    shared_s[BYTES] += num_bytes
    shared_s[ROWS] += rows
    job_f[RUNNING] -= 1
    if failed_at < job_f[FAILED_AT]:
        job_f[FAILED_AT], job_f[FAILED_ERRNO], job_f[FAILED_GOT] = failed_at, errno, got
        job_f[NEXT] = job_f[TOTAL]
    if job_f[RUNNING] == 0 and job_f[NEXT] >= job_f[TOTAL]:
        job_f[OPEN] = 0
        semaphore_post(the_lock + (2 + slot) * PLACE_BYTES)
    unlock(the_lock)


@njit(nogil=True, cache=True)
def serve(jobs_jf, shared_s, buffer_b):  # type: ignore[no-untyped-def]
    """What a thread does for life: take a run and read it, through its own ``buffer_b``; wait when there is none."""
    the_lock = shared_s.ctypes.data + 8 * LOCKS
    while True:
        lock(the_lock)
        slot = _next_job(jobs_jf, shared_s)
        if slot >= 0:
            run = _take(jobs_jf[slot])
            unlock(the_lock)
            _finish(jobs_jf, shared_s, slot, run, buffer_b, 0, 0)
        elif not _wait_for_work(shared_s, the_lock):
            return


@njit(nogil=True, cache=True)
def serve_queued(jobs_jf, shared_s, buffers_db, blocks_d8, events_d4, lists_ld, context):  # type: ignore[no-untyped-def]
    """The same with as many reads under way as there are buffers, by the system's queue ``context``: for direct reads.

    Waits for a quarter of them at a time, so that one call of the system serves many. ``lists_ld``: FREE ones (all, at first),
    POINTERS to the system's control ``blocks_d8`` of those to submit, and of each its SLOT and RUN.
    """
    depth = buffers_db.shape[0]
    the_lock, num_free = shared_s.ctypes.data + 8 * LOCKS, depth
    while True:
        lock(the_lock)
        count = 0
        while count < num_free:
            slot = _next_job(jobs_jf, shared_s)
            if slot < 0:
                break
            count += 1
            d = lists_ld[FREE, num_free - count]
            lists_ld[SLOT, d], lists_ld[RUN, d] = slot, _take(jobs_jf[slot])
        if count == 0 and num_free == depth:
            if not _wait_for_work(shared_s, the_lock):
                return
            continue
        unlock(the_lock)
        for at in range(count):
            num_free -= 1
            d = lists_ld[FREE, num_free]
            lists_ld[POINTERS, at] = blocks_d8[d].ctypes.data
            _describe(jobs_jf[lists_ld[SLOT, d]], lists_ld[RUN, d], buffers_db[d], blocks_d8[d], d)
        sent = 0
        while sent < count:
            taken = syscall(IO_SUBMIT, context, count - sent, lists_ld[POINTERS, sent:].ctypes.data, 0, 0)
            if taken <= 0:  # the first one is refused: pread will say why
                d = (lists_ld[POINTERS, sent] - blocks_d8.ctypes.data) // BLOCK
                _finish(jobs_jf, shared_s, lists_ld[SLOT, d], lists_ld[RUN, d], buffers_db[d], 0, 0)
                lists_ld[FREE, num_free] = d
                num_free += 1
            sent += max(taken, 1)
        under_way = depth - num_free
        count = syscall(IO_GETEVENTS, context, min(under_way, (depth + 3) // 4), depth, events_d4.ctypes.data, 0)
        for at in range(count):
            d = events_d4[at, 0]
            come = max(events_d4[at, 2], 0)
            _finish(jobs_jf, shared_s, lists_ld[SLOT, d], lists_ld[RUN, d], buffers_db[d], come, 1)
            lists_ld[FREE, num_free] = d
            num_free += 1


@njit(nogil=True, cache=True)
def _bounds(job_f, run):  # type: ignore[no-untyped-def]
    """(where in the order a run begins and ends, file descriptor, first byte, byte behind the last)."""
    first, after = load_int64(job_f[FIRSTS] + 8 * run), load_int64(job_f[FIRSTS] + 8 * (run + 1))
    n, last = load_int64(job_f[ORDER] + 8 * first), load_int64(job_f[ORDER] + 8 * (after - 1))
    begin, end = load_int64(job_f[OFFSETS] + 8 * n), load_int64(job_f[OFFSETS] + 8 * last) + job_f[NUM_BYTES]
    return first, after, load_int32(job_f[FDS] + 4 * n), begin, end


@njit(nogil=True, cache=True)
def _widened(begin, end, align):  # type: ignore[no-untyped-def]
    return begin // align * align, (end + align - 1) // align * align


@njit(nogil=True, cache=True)
def _describe(job_f, run, buffer_b, block_8, d):  # type: ignore[no-untyped-def]
    """Write the system's control block (``struct iocb``) for reading a run, or as much of it as the buffer holds."""
    _, _, fd, begin, end = _bounds(job_f, run)
    low, high = _widened(begin, end, job_f[ALIGN])
    block_8[:] = 0
    block_8[0], block_8[2], block_8[3] = d, np.int64(fd) << 32, buffer_b.ctypes.data
    block_8[4], block_8[5] = min(high - low, buffer_b.shape[0]), low


@njit(nogil=True, cache=True)
def _read_run(job_f, run, buffer_b, come, calls):  # type: ignore[no-untyped-def]
    """Read one run and lay its rows where they belong, a buffer's length at a time (one is enough for more than one request).

    ``come`` bytes are in the buffer, by ``calls`` reads. Returns (reads, bytes, rows, failed_at, errno, got): where in the order the
    first request is whose bytes did not all come, with how many did; NEVER where there is none.
    """
    first, after, fd, begin, end = _bounds(job_f, run)
    nbytes, align, buffer, buffer_bytes = job_f[NUM_BYTES], job_f[ALIGN], buffer_b.ctypes.data, buffer_b.shape[0]
    if align == 1 and after == first + 1:
        n = load_int64(job_f[ORDER] + 8 * first)
        got, reads, errno = _read(fd, job_f[OUT] + job_f[STRIDE] * n, nbytes, begin, align, 0, 0)
        return reads, got, np.int64(got == nbytes), NEVER if got == nbytes else first, errno, got
    low, high = _widened(begin, end, align)
    reads, num_bytes = calls, 0
    while True:
        length = min(buffer_bytes, high - low)
        got, reads, errno = _read(fd, buffer, length, low, align, come, reads)
        num_bytes += got
        for at in range(first, after):
            n = load_int64(job_f[ORDER] + 8 * at)
            offset = load_int64(job_f[OFFSETS] + 8 * n)
            start, stop = max(offset, low), min(offset + nbytes, low + got)
            if stop > start:
                copy_bytes(job_f[OUT] + job_f[STRIDE] * n + start - offset, buffer + start - low, stop - start)
            if offset + nbytes > low + got and got < length:
                return reads, num_bytes, at - first, at, errno, max(stop - offset, 0)
        low, come = low + length, 0
        if low >= high or got < length:
            return reads, num_bytes, after - first, NEVER, 0, 0


@njit(nogil=True, cache=True)
def _read(fd, to, num_bytes, offset, align, done, calls):  # type: ignore[no-untyped-def]
    """``pread`` until all came (some has), the file ended or it failed. Returns (bytes that came, calls, errno or 0)."""
    while done < num_bytes and done % align == 0:  # direct, the file's last bytes come in no whole block
        got = pread(fd, to + done, num_bytes - done, offset + done)
        calls += 1
        if got == 0:
            break
        if got > 0:
            done += got
        elif load_int32(errno_address()) != EINTR:
            return done, calls, np.int64(load_int32(errno_address()))
    return done, calls, np.int64(0)
