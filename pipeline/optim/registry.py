"""All optimizers of embedding rows, by name, and how others join them.

One of your own is found by the name that its package gave it (entry point group ``rowstream.optimizers``) or as
``package.module:SPEC``; either names an ``OptimizerSpec``. ``register_optimizer`` adds one from code.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final

from pipeline.optim.adagrad import ADAGRAD, ROWWISE_ADAGRAD
from pipeline.optim.adam import ADAM, LAMB, PARTIAL_ROWWISE_ADAM, PARTIAL_ROWWISE_LAMB
from pipeline.optim.checking import check_spec
from pipeline.optim.errors import OptimizerError
from pipeline.optim.sgd import LARS_SGD, SGD
from pipeline.optim.spec import OptimizerSpec

GROUP: Final = "rowstream.optimizers"
_registered: dict[str, OptimizerSpec] = {}
OPTIMIZERS: Final[Mapping[str, OptimizerSpec]] = MappingProxyType(_registered)
"""Those that are known by now."""


def register_optimizer(spec: OptimizerSpec) -> OptimizerSpec:
    """Let configs and code use an optimizer by its name; returns it.

    Its module, loaded again, replaces it. Raises OptimizerError for a spec that does not fit together, and for the name of another.
    """
    check_spec(spec)
    other = OPTIMIZERS.get(spec.name, spec)
    if _place(other) != _place(spec):
        raise OptimizerError(f"two optimizers are named {spec.name!r}: those of {_place(other)} and {_place(spec)}")
    _registered[spec.name] = spec
    return spec


def find_optimizer(kind: str) -> OptimizerSpec | None:
    """The optimizer that a config means by ``kind``; None where there is none of this name. Raises OptimizerError."""
    if kind not in OPTIMIZERS:
        entries = _entries()
        if ":" not in kind and kind not in entries:
            return None
        path = kind if ":" in kind else entries[kind].value
        spec = register_optimizer(_load(path))
        if ":" not in kind and spec.name != kind:
            raise OptimizerError(f"{path!r} is the optimizer {spec.name!r}, and its package calls it {kind!r}")
        return spec
    return OPTIMIZERS[kind]


def optimizer_names() -> list[str]:
    """All names that a config can use, sorted; loads none."""
    return sorted({*OPTIMIZERS, *_entries()})


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(path: str) -> OptimizerSpec:
    module_name, _, name = path.partition(":")
    try:
        found: Any = getattr(import_module(module_name), name)
    except AttributeError as error:
        raise OptimizerError(f"{path!r}: no {name!r} in {module_name!r}; name it as package.module:SPEC") from error
    except Exception as error:  # whatever the module does when it is imported
        raise OptimizerError(f"{path!r}: importing it failed: {type(error).__name__}: {error}") from error
    if not isinstance(found, OptimizerSpec):
        raise OptimizerError(f"{path!r} is a {type(found).__name__}; an optimizer is an OptimizerSpec")
    return found


def _place(spec: OptimizerSpec) -> str:
    return f"{spec.options.__module__}:{spec.options.__qualname__}"


for _spec in (SGD, ADAGRAD, ROWWISE_ADAGRAD, ADAM, PARTIAL_ROWWISE_ADAM, LAMB, PARTIAL_ROWWISE_LAMB, LARS_SGD):
    register_optimizer(_spec)
