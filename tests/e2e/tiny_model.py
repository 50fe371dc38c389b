"""A user's own model, named in a config as ``tests.e2e.tiny_model:TinyModel``. Takes pooled features and sequences."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict

from pipeline.models.features import PooledFeatures
from pipeline.models.inputs import ModelInputs


class TinyOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    hidden: int = 16


class TinyModel(torch.nn.Module):
    Options = TinyOptions

    def __init__(self, inputs: ModelInputs, options: TinyOptions) -> None:
        super().__init__()
        width = sum(inputs.dims) + sum(inputs.sequence_dims) + inputs.num_dense
        self.first = torch.nn.Linear(width, options.hidden)
        self.last = torch.nn.Linear(options.hidden, 1)

    def forward(self, features: PooledFeatures, dense_bd: torch.Tensor) -> torch.Tensor:
        parts = [features.pooled_bs, dense_bd]
        for sequence in features.sequences.values():
            offsets_b = torch.as_tensor(sequence.offsets_b)
            bags_n = torch.repeat_interleave(torch.arange(offsets_b.numel() - 1), offsets_b.diff())
            summed_bd = torch.zeros(dense_bd.shape[0], sequence.values_nd.shape[1])
            parts.append(torch.tanh(summed_bd.index_add(0, bags_n, sequence.values_nd)))
        return self.last(torch.relu(self.first(torch.cat(parts, dim=1)))).squeeze(1)  # type: ignore[no-any-return]
