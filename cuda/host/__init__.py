"""The host backend: Numba kernels on the processor. See README.md one folder up."""

from cuda.host.threads import choose_layer

choose_layer()  # before any kernel runs: Numba keeps the layer of the first parallel loop

from cuda.host.backend import HostBackend  # noqa: E402
from cuda.host.own_rules import register_rule  # noqa: E402
from cuda.host.warm import warm_up  # noqa: E402

__all__ = ["HostBackend", "register_rule", "warm_up"]
