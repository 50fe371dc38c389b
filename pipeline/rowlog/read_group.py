"""The threads that read, and what they share with callers.

Cached reads take as many threads as reads are to be under way, each in a ``pread``: the page cache answers in the caller's time, so
there is nothing to wait for. Direct reads take one thread for every ``PER_QUEUE``, which keeps that many under way in a queue of the
system: few reads cost a switch of threads, which is most of the processor time of a blocking one. Where the system gives no queue,
direct reads take threads too, and ``how`` says so.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.rowlog import read_kernels as kernels
from pipeline.rowlog.read_native import HAS_QUEUES, IO_DESTROY, IO_SETUP

PER_QUEUE = 8
"""With more, all reads wait when their one thread waits for a busy processor; with fewer, a call of the system serves fewer."""
_LIBC = ctypes.CDLL(None, use_errno=True)


class ReadGroup:
    """Threads live from here to ``end``. ``depth`` buffers of ``buffer_bytes`` are all the memory there is."""

    def __init__(self, depth: int, direct: bool, num_slots: int, buffer_bytes: int) -> None:
        self.jobs_jf = np.zeros((num_slots, kernels.NUM_FIELDS), np.int64)
        self.shared_s = np.zeros(kernels.shared_numbers(num_slots), np.int64)
        self.threads: list[threading.Thread] = []
        self._buffers_db = np.frombuffer(mmap.mmap(-1, depth * buffer_bytes), np.uint8).reshape(depth, buffer_bytes)
        self._queues, why = _open_queues(-(-depth // PER_QUEUE)) if direct else ([], "cached reads")
        self.how = f"{len(self._queues)} queue(s) of the system" if self._queues else f"{depth} threads: {why}"
        kernels.prepare(self.shared_s, num_slots, PER_QUEUE if self._queues else 1)

    def start(self) -> None:
        """May leave some threads behind when it raises; ``end`` ends them."""
        works = self._queue_works() if self._queues else [(kernels.serve, (buffer_b,)) for buffer_b in self._buffers_db]
        kernels.stop(self.shared_s)
        works[0][0](self.jobs_jf, self.shared_s, *works[0][1])  # returns at once, compiled
        self.shared_s[kernels.STOP] = 0
        for number, (work, own) in enumerate(works):
            # A daemon only so that the interpreter does not wait for it before it runs finalizers.
            arguments = (self.jobs_jf, self.shared_s, *own)
            thread = threading.Thread(target=work, args=arguments, name=f"random-reads-{number}", daemon=True)
            thread.start()
            self.threads.append(thread)

    def _queue_works(self) -> list[tuple[Any, tuple[Any, ...]]]:
        shares = np.array_split(self._buffers_db, len(self._queues))
        return [
            (kernels.serve_queued, (buffers_db, *_queue_memory(len(buffers_db)), queue))
            for buffers_db, queue in zip(shares, self._queues, strict=True)
        ]

    def end(self) -> None:
        """Let the threads finish what was asked, and wait for them."""
        kernels.stop(self.shared_s)
        for thread in self.threads:
            thread.join()
        for queue in self._queues:
            _system_call(IO_DESTROY, queue)


def _queue_memory(depth: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Control blocks, events and lists of ``serve_queued``."""
    lists_ld = np.zeros((kernels.NUM_LISTS, depth), np.int64)
    lists_ld[kernels.FREE] = np.arange(depth)
    return np.zeros((depth, 8), np.int64), np.zeros((depth, 4), np.int64), lists_ld


def _open_queues(count: int) -> tuple[list[int], str]:
    """That many queues, or none and why."""
    queues: list[int] = []
    if not HAS_QUEUES:
        return queues, "no queues known for this processor"
    for _ in range(count):
        queue = ctypes.c_ulong(0)
        code = _system_call(IO_SETUP, PER_QUEUE, ctypes.addressof(queue))
        if code:
            for opened in queues:
                _system_call(IO_DESTROY, opened)
            return [], f"the system gives no queue ({os.strerror(code)})"
        queues.append(queue.value)
    return queues, ""


def _system_call(number: int, *arguments: int) -> int:
    """0 or the errno."""
    failed = _LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return ctypes.get_errno() if failed else 0
