"""What the read kernels ask of libc and of the processor: reading, waiting, and bytes at an address.

Addresses are int64 throughout, for libc too: a pointer has the same size and place in a call. A semaphore or a lock takes at most
``PLACE_BYTES``.
"""

from __future__ import annotations

import platform
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

PLACE_BYTES: Final = 64
EINTR: Final = 4
# The calls of Linux that libc has no function for: a queue of reads under way (man 2 io_submit).
IO_SETUP, IO_DESTROY, IO_SUBMIT, IO_GETEVENTS = (
    (0, 1, 2, 4) if platform.machine() == "aarch64" else (206, 207, 209, 208)
)
HAS_QUEUES: Final = platform.machine() in ("x86_64", "aarch64")
_INT32, _INT64 = types.int32, types.int64

pread: Any = types.ExternalFunction("pread", _INT64(_INT32, _INT64, _INT64, _INT64))
"""``(fd, address, num_bytes, offset)``: the bytes read, 0 at the end of the file, -1 for an error."""
syscall: Any = types.ExternalFunction("syscall", _INT64(*[_INT64] * 6))
"""``(number, five arguments)``: -1 for an error."""
errno_address: Any = types.ExternalFunction("__errno_location", _INT64())
lock_init: Any = types.ExternalFunction("pthread_mutex_init", _INT32(_INT64, _INT64))
lock: Any = types.ExternalFunction("pthread_mutex_lock", _INT32(_INT64))
unlock: Any = types.ExternalFunction("pthread_mutex_unlock", _INT32(_INT64))
semaphore_init: Any = types.ExternalFunction("sem_init", _INT32(_INT64, _INT32, types.uint32))
semaphore_wait: Any = types.ExternalFunction("sem_wait", _INT32(_INT64))
"""0, or -1 when a signal came in between."""
semaphore_post: Any = types.ExternalFunction("sem_post", _INT32(_INT64))


def _load(kind: Any, bits: int) -> Any:
    @intrinsic
    def load(_context: Any, address: Any) -> Any:
        def make(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.load(builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer()))

        return kind(address), make

    return load


load_int32 = _load(_INT32, 32)
"""The int32 at an address."""
load_int64 = _load(_INT64, 64)
"""The int64 at an address."""


def _copy(_context: Any, to: Any, source: Any, num_bytes: Any) -> Any:
    def make(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        places = [builder.inttoptr(address, cgutils.voidptr_t) for address in arguments[:2]]
        cgutils.raw_memcpy(builder, *places, arguments[2], 1)  # type: ignore[no-untyped-call, call-arg]
        return context.get_dummy_value()

    return types.void(to, source, num_bytes), make


copy_bytes: Any = intrinsic(_copy)
"""``(to, source, num_bytes)``, all int64. They do not overlap."""
