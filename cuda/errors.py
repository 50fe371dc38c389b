"""What can go wrong in choosing and opening a backend."""

from __future__ import annotations


class BackendUnavailable(RuntimeError):
    """The device that was asked for cannot be used here. ``device`` is what was asked for."""

    def __init__(self, device: str, missing: str, instead: str) -> None:
        super().__init__(f"device {device!r} cannot be used: {missing}; {instead}")
        self.device = device


class NoThreadingLayer(RuntimeError):
    """Numba found no threading layer that is safe when several lanes compute at once."""

    def __init__(self, found: str, reasons: str) -> None:
        super().__init__(
            f"Numba can only use the threading layer {found!r}, which aborts the process when two lanes compute at once "
            f"({reasons}); install one that can: `pip install tbb`, or the libgomp of your system (`apt install libgomp1`)"
        )


class PoolTooLarge(MemoryError):
    """The pool of slots does not fit into memory."""

    def __init__(self, num_slots: int, slot_bytes: int, available_bytes: int) -> None:
        fit = max(0, available_bytes // slot_bytes)
        super().__init__(
            f"{num_slots} slots of {slot_bytes} bytes need {num_slots * slot_bytes / 2**30:.2f} GiB, and "
            f"{available_bytes / 2**30:.2f} GiB are free: at most {fit} rows would fit (store.l1_rows)"
        )
        self.rows_that_fit = fit


class RuleUnavailable(ValueError):
    """A backend cannot update rows by a rule. ``backend``, ``rule``: their names."""

    def __init__(self, backend: str, rule: str, reason: str) -> None:
        super().__init__(f"rule {rule!r} of the {backend} backend: {reason}")
        self.backend, self.rule = backend, rule


class RuleRefused(RuleUnavailable):
    """What was to be a rule of the host backend is none."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__("host", rule, reason)
