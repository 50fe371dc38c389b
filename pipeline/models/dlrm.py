"""DLRM: an MLP over the dense columns, interaction with the pooled embeddings, an MLP to one logit.

The model of Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation Systems", 2019.

B samples; F pooled features of one dim D (for ``dot``); X vectors that interact: the features, and the bottom MLP's
output before them where there are dense columns. The top MLP reads that output and the X(X-1)/2 inner products; without
dense columns, the products alone. With ``cat`` it reads the vectors side by side, whose dims may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.models.dot import DotInteraction
from pipeline.models.errors import ModelError
from pipeline.models.features import PooledFeatures
from pipeline.models.inputs import ModelInputs


class DlrmOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    bottom_mlp: list[int] = Field(
        default=[256, 64], description="widths of the MLP over the dense columns; unused where there are none"
    )
    top_mlp: list[int] = Field(
        default=[256, 128, 1], min_length=1, description="widths of the MLP behind the interaction, the last is 1"
    )
    interaction: Literal["dot", "cat"] = Field(
        default="dot", description="inner products of all pairs, or the vectors side by side"
    )

    @model_validator(mode="after")
    def widths_are_possible(self) -> DlrmOptions:
        if self.top_mlp[-1] != 1:
            raise ValueError(f"top_mlp ends with {self.top_mlp[-1]}; the last width is 1, the logit")
        if any(width < 1 for width in (*self.bottom_mlp, *self.top_mlp)):
            raise ValueError("a layer is at least 1 wide")
        return self


class Dlrm(torch.nn.Module):
    """See the module docstring. Raises ModelError where the inputs and the options do not fit."""

    Options: ClassVar[type[DlrmOptions]] = DlrmOptions

    def __init__(self, inputs: ModelInputs, options: DlrmOptions) -> None:
        super().__init__()
        _check(inputs, options)
        self.bottom = mlp(inputs.num_dense, options.bottom_mlp, last_relu=True) if inputs.num_dense else None
        dims = ((options.bottom_mlp[-1],) if self.bottom is not None else ()) + inputs.dims
        self.num_vectors, self.dim = len(dims), dims[0]
        self.dot = DotInteraction(len(dims)) if options.interaction == "dot" else None
        width = sum(dims)
        if self.dot is not None:
            width = self.dot.num_pairs + (dims[0] if self.bottom is not None else 0)
        self.top = mlp(width, options.top_mlp, last_relu=False)

    def forward(self, features: PooledFeatures, dense_bd: torch.Tensor) -> torch.Tensor:
        """Logits [B]."""
        pooled_bs = features.pooled_bs
        bottom_bd = None if self.bottom is None else self.bottom(dense_bd)
        vectors_bs = pooled_bs if bottom_bd is None else torch.cat((bottom_bd, pooled_bs), dim=1)
        if self.dot is None:
            return self.top(vectors_bs).squeeze(1)  # type: ignore[no-any-return]
        pairs_bp = self.dot(vectors_bs.view(-1, self.num_vectors, self.dim))
        if bottom_bd is not None:
            pairs_bp = torch.cat((bottom_bd, pairs_bp), dim=1)
        return self.top(pairs_bp).squeeze(1)  # type: ignore[no-any-return]


def mlp(width: int, widths: Sequence[int], *, last_relu: bool) -> torch.nn.Sequential:
    """Linear layers with ReLU between them, and behind the last if asked for. Weights as torch.nn.Linear makes them."""
    layers: list[torch.nn.Module] = []
    for number, out in enumerate(widths):
        layers.append(torch.nn.Linear(width, out))
        if last_relu or number + 1 < len(widths):
            layers.append(torch.nn.ReLU(inplace=True))
        width = out
    return torch.nn.Sequential(*layers)


def _check(inputs: ModelInputs, options: DlrmOptions) -> None:
    if inputs.sequence_names:
        names = ", ".join(inputs.sequence_names)
        raise ModelError(
            f"model dlrm: {names} have pooling none, and dlrm reads pooled features; use sum or mean, or another model"
        )
    if not inputs.names:
        raise ModelError("model dlrm: there is no pooled feature")
    if inputs.num_dense and not options.bottom_mlp:
        raise ModelError(f"model dlrm: bottom_mlp is empty, but there are {inputs.num_dense} dense columns")
    if options.interaction == "cat":
        return
    dims = dict(zip(inputs.names, inputs.dims, strict=True))
    if inputs.num_dense:
        dims = {"bottom_mlp": options.bottom_mlp[-1], **dims}
    if len(set(dims.values())) > 1:
        raise ModelError(
            f"model dlrm: interaction dot needs one dim, got {dims}; make them equal or use interaction: cat"
        )
    if len(dims) < 2:
        raise ModelError(
            "model dlrm: interaction dot needs two vectors, and there is one feature and no dense column; use cat"
        )
