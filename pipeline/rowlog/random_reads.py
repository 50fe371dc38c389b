"""Many small reads from random places of files, fast enough to keep a disk's queue full.

Rules.

1. A fixed group of threads waits in native code between batches and reads in native code: neither takes the interpreter's lock.
   ``depth`` is how many reads are under way at once: so many threads in ``pread``, or, direct, a few with queues of the system.
2. A batch is sorted by (fd, offset); neighbours no more than ``GAP_BYTES`` apart are read as one, up to ``RUN_BYTES``.
3. Callers are served in turn, one read each, so a small batch never waits for all of a large one. ``MAX_CALLERS`` are served at once,
   and more wait in the order in which they came.
4. All of a batch is read or an error is raised.
5. Memory: one buffer of ``RUN_BYTES`` for each read under way, and 24 bytes for each request of a batch while it is read.
6. No use after a fork: a child has none of the threads.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.rowlog import read_kernels as kernels
from pipeline.rowlog import read_plan
from pipeline.rowlog.errors import ReadFailed, ReadsClosed
from pipeline.rowlog.read_group import ReadGroup
from pipeline.rows.arrays import read_only

BLOCK_BYTES = 4096
"""Direct reads begin and end at its multiples."""
RUN_BYTES = 128 << 10
GAP_BYTES = 4096
MAX_CALLERS = 16

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ReadCounters:
    """What was done so far: reads asked of the system, the bytes they brought (gaps and widening included), requests answered."""

    reads: int
    bytes_read: int
    rows: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """``order_n``: the requests in order of (fd, offset); ``firsts_r``: where in it each run begins, and the end."""

    order_n: Int64s
    firsts_r: Int64s
    num_runs: int


class RandomReads:
    """Context manager. Its threads start here and end in ``close``; safe to use from many threads.

    With ``direct`` every file descriptor was opened with O_DIRECT, and reads are widened to whole blocks.
    """

    def __init__(self, depth: int = 32, direct: bool = False) -> None:
        if depth < 1:
            raise ValueError(f"a depth of {depth}; the least is 1")
        self.depth = depth
        self.direct = direct
        self._group = ReadGroup(depth, direct, MAX_CALLERS, RUN_BYTES)
        self._free: SimpleQueue[int] = SimpleQueue()
        for slot in range(MAX_CALLERS):
            self._free.put(slot)
        self._closed = False
        self._closing = threading.Lock()
        # Whoever forgets to close leaves no threads behind: the finalizer runs when this is collected, or at exit.
        self._finish = weakref.finalize(self, self._group.end)
        try:
            self._group.start()
        except BaseException:
            self._finish()
            raise

    def read(self, fds_n: npt.NDArray[np.int32], offsets_n: Int64s, nbytes: int, out_nb: npt.NDArray[np.uint8]) -> None:
        """Read ``nbytes`` at each (fd, offset) to the beginning of each row of ``out_nb``, uint8 [n, at least nbytes].

        Blocks, without the interpreter's lock: not for the event loop's thread. Duplicates and overlaps are fine. The caller keeps
        the files open and ``out_nb`` to itself meanwhile. Raises ReadFailed for the first request, in order of (fd, offset), of
        those found to fail (where one ``pread`` serves several, its first that got less than all); ``out_nb`` then holds anything.
        Raises ReadsClosed; TypeError and ValueError for arguments that do not fit, before anything is read.
        """
        fds_n, offsets_n = read_only(fds_n, np.int32), read_only(offsets_n, np.int64)
        _check(fds_n, offsets_n, nbytes, out_nb)
        if not len(fds_n):
            return
        plan = self._plan(fds_n, offsets_n, nbytes)
        failed_at, code, got = self._run(plan, fds_n, offsets_n, nbytes, out_nb)
        if failed_at != kernels.NEVER:
            n = int(plan.order_n[failed_at])
            raise ReadFailed(n, int(fds_n[n]), int(offsets_n[n]), nbytes, got, code)

    def _plan(self, fds_n: npt.NDArray[np.int32], offsets_n: Int64s, nbytes: int) -> _Plan:
        keys_n, firsts_r = np.empty(len(fds_n), np.int64), np.empty(len(fds_n) + 1, np.int64)
        found = int(read_plan.sort_keys(fds_n, offsets_n, nbytes, keys_n))
        if found >= 0:
            raise ValueError(f"request {found}: no file has {nbytes} bytes at offset {offsets_n[found]}")
        order_n = np.argsort(keys_n) if found == read_plan.ALL_FIT else np.lexsort((offsets_n, fds_n))
        align = BLOCK_BYTES if self.direct else 1
        num_runs = read_plan.plan_runs(fds_n, offsets_n, order_n, nbytes, align, GAP_BYTES, RUN_BYTES, firsts_r)
        return _Plan(order_n, firsts_r, int(num_runs))

    def _run(
        self, plan: _Plan, fds_n: npt.NDArray[np.int32], offsets_n: Int64s, nbytes: int, out_nb: npt.NDArray[np.uint8]
    ) -> Sequence[int]:
        """Have the threads read. Returns (where in the order the first failure is or NEVER, its errno, its bytes)."""
        state = (0, 0, plan.num_runs, 0, kernels.NEVER, 0, 0, 0)
        places = [_address(array) for array in (fds_n, offsets_n, plan.order_n, plan.firsts_r, out_nb)]
        slot = self._free.get()
        try:
            if self._closed:
                raise ReadsClosed
            jobs_jf = self._group.jobs_jf
            jobs_jf[slot] = (*state, *places, out_nb.strides[0], nbytes, BLOCK_BYTES if self.direct else 1)
            kernels.run_job(jobs_jf, self._group.shared_s, slot)
            failed: list[int] = jobs_jf[slot, kernels.FAILED_AT : kernels.FAILED_GOT + 1].tolist()
        finally:
            self._free.put(slot)
        return failed

    @property
    def how(self) -> str:
        """What reads: threads, or queues of the system; and why, where it could have been the other."""
        return self._group.how

    @property
    def counters(self) -> ReadCounters:
        """As of about now; exact when no read is under way."""
        return ReadCounters(*self._group.shared_s[[kernels.READS, kernels.BYTES, kernels.ROWS]].tolist())

    def close(self) -> None:
        """Wait for the reads under way, then end the threads. Reads that come later raise ReadsClosed. May be called twice."""
        with self._closing:
            self._closed = True
            slots = [self._free.get() for _ in range(MAX_CALLERS)]  # a slot comes back when its caller is done
            self._finish()
            for slot in slots:  # and wakes whoever waited for one, to be told
                self._free.put(slot)

    def __enter__(self) -> RandomReads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.ctypes.data)


def _check(fds_n: npt.NDArray[np.int32], offsets_n: Int64s, nbytes: int, out_nb: npt.NDArray[np.uint8]) -> None:
    num = len(fds_n)
    if fds_n.ndim != 1 or offsets_n.shape != (num,):
        raise ValueError(f"one file descriptor and one offset a request; got {fds_n.shape} and {offsets_n.shape}")
    if nbytes < 1:
        raise ValueError(f"{nbytes} bytes a request; the least is 1")
    if out_nb.dtype != np.uint8 or out_nb.ndim != 2 or len(out_nb) != num or out_nb.shape[1] < nbytes:
        raise ValueError(f"out is uint8 [{num}, at least {nbytes}]; got {out_nb.dtype} {out_nb.shape}")
    apart = num < 2 or out_nb.strides[0] >= nbytes
    contiguous = num == 0 or nbytes == 1 or out_nb.strides[1] == 1
    if not (out_nb.flags.writeable and contiguous and apart):
        raise ValueError(f"out's rows are writable, contiguous and apart; got strides {out_nb.strides}")
