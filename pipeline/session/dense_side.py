"""The dense side of a plan: the model and its optimizer, as a run begins with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipeline.models.factory import build_model
from pipeline.models.inputs import ModelInputs

if TYPE_CHECKING:
    from pipeline.session.plan import Plan


def initial_model(plan: Plan) -> torch.nn.Module:
    """The dense model of a plan with the weights it begins with: a pure function of the config. Raises ModelError."""
    settings, features = plan.settings, plan.features
    dims = {name: int(dim) for name, dim in zip(features.names, features.dims_f, strict=True)}
    pooled = tuple(name for name in features.names if settings.features[name].pooling != "none")
    sequences = tuple(name for name in features.names if name not in pooled)
    inputs = ModelInputs(
        names=pooled,
        dims=tuple(dims[name] for name in pooled),
        sequence_names=sequences,
        sequence_dims=tuple(dims[name] for name in sequences),
        num_dense=plan.num_dense,
    )
    return build_model(settings.model.use, settings.model.options, inputs, settings.run.seed)
