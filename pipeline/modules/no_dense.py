"""The dense side of a job that has none: the user's own loop has it."""

from __future__ import annotations

import torch

from pipeline.models.inputs import ModelInputs


class NoDense(torch.nn.Module):
    """No weights. It is never run."""

    def __init__(self, inputs: ModelInputs) -> None:
        super().__init__()
        del inputs
