"""The one place where a backend is chosen."""

from __future__ import annotations

from typing import Literal

from cuda.backend import Backend, UpdateRule
from cuda.errors import BackendUnavailable
from pipeline.rows.spec import TableSpec

Device = Literal["auto", "host", "cuda"]


def choose_backend(device: Device, threads: int) -> Backend:
    """The backend for a device; ``threads`` is how many the host backend may use in one call.

    ``auto`` takes the best that works here, which is ``host`` as long as there is no CUDA backend. Raises BackendUnavailable, with
    what is missing and what would work, for a device that cannot be used, and ValueError for an unknown one.
    """
    check_device(device)
    from cuda.host import HostBackend

    return HostBackend(threads)


def check_device(device: Device) -> None:
    """Raises what ``choose_backend`` would for this device, and loads nothing."""
    if device == "cuda":
        raise BackendUnavailable(
            device,
            "this version has no CUDA backend yet",
            "use device=host, or device=auto, which takes the best there is",
        )
    if device not in ("auto", "host"):
        raise ValueError(f"device {device!r} is unknown; choose auto, host or cuda")


def check_rule(device: Device, spec: TableSpec, rule: UpdateRule) -> None:
    """Raises RuleUnavailable where the backend for this device has no such rule, or none for rows like this table's."""
    check_device(device)
    from cuda.host.rules import RULES

    RULES.check(spec, rule)
