"""Builds a model by name: ``dlrm``, or ``package.module:Class`` of one's own.

A model class is a ``torch.nn.Module`` with ``forward(features: PooledFeatures, dense_bd) -> logits [B]``. With an
attribute ``Options`` (a pydantic model) it is made as ``Class(inputs, options)``, else as ``Class(inputs, **options)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from pipeline.models.dlrm import Dlrm
from pipeline.models.errors import ModelError
from pipeline.models.inputs import ModelInputs
from pipeline.models.names import check_keywords, load_named, read_options

__all__ = ["MODELS", "ModelInputs", "build_model"]

MODELS: Final[Mapping[str, Callable[..., torch.nn.Module]]] = {"dlrm": Dlrm}


def build_model(use: str, options: Mapping[str, Any], inputs: ModelInputs, seed: int) -> torch.nn.Module:
    """The model, its weights a function of ``seed`` alone; torch's global generator is left as it was.

    Raises ModelError for an unknown name or option, and for inputs the model cannot take.
    """
    make = MODELS[use] if use in MODELS else load_named("model", use, MODELS)
    if not callable(make):
        raise ModelError(f"model {use!r} is {type(make).__name__}; a torch.nn.Module class was expected")
    described = getattr(make, "Options", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if described is not None:
            model = make(inputs, read_options(f"model {use}", described, options))
        else:
            check_keywords(f"model {use}", make, options, ("inputs",))
            model = make(inputs, **options)
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"model {use!r} made a {type(model).__name__}; a torch.nn.Module was expected")
    return model
