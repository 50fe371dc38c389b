"""The dot interaction with a backward of its own.

Plain autograd through ``bmm(x, x')[:, i, j]`` scatters the gradient of the triangle into a zeroed square and multiplies
twice. Here the gradient of the triangle is laid out as a symmetric square by one gather, and one product gives dL/dx.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


class DotInteraction(torch.nn.Module):
    """[B, F, D] -> [B, F(F-1)/2]: the inner products of all pairs i > j, in the order (1,0), (2,0), (2,1), (3,0) ..."""

    pairs_p: torch.Tensor
    square_q: torch.Tensor

    def __init__(self, num_vectors: int) -> None:
        super().__init__()
        i, j = torch.tril_indices(num_vectors, num_vectors, -1)
        self.num_pairs = int(i.numel())
        square_q = torch.full((num_vectors * num_vectors,), self.num_pairs)
        square_q[i * num_vectors + j] = torch.arange(self.num_pairs)
        square_q[j * num_vectors + i] = torch.arange(self.num_pairs)
        # Not weights: they follow from the number of vectors, so they are no part of the saved model.
        self.register_buffer("pairs_p", i * num_vectors + j, persistent=False)
        self.register_buffer("square_q", square_q, persistent=False)

    def forward(self, vectors_bfd: torch.Tensor) -> torch.Tensor:
        return _Dot.apply(vectors_bfd, self.pairs_p, self.square_q)  # type: ignore[no-untyped-call, no-any-return]


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors_bfd: torch.Tensor, pairs_p: torch.Tensor, square_q: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(vectors_bfd, square_q)
        products_bff = torch.bmm(vectors_bfd, vectors_bfd.transpose(1, 2))
        return products_bff.flatten(1).index_select(1, pairs_p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_bp: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        vectors_bfd, square_q = ctx.saved_tensors
        batch, count = vectors_bfd.shape[:2]
        # One column of zeros behind the pairs is the diagonal.
        padded = torch.nn.functional.pad(grad_bp, (0, 1))
        grad_bff = padded.index_select(1, square_q).view(batch, count, count)
        return torch.bmm(grad_bff, vectors_bfd), None, None
