"""Leaves are aligned, and stacking or splitting them copies nothing."""

from __future__ import annotations

import pytest
import torch

from pipeline.models.features import LEAF_ALIGNMENT_BYTES, PooledFeatures, aligned_empty


def features_of(dims: tuple[int, ...], batch: int = 5) -> PooledFeatures:
    leaf = aligned_empty((batch, sum(dims)))
    leaf.copy_(torch.randn(leaf.shape))
    return PooledFeatures(tuple(f"f{n}" for n in range(len(dims))), dims, leaf.requires_grad_())


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (7, 0, 3), (2048, 65)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_an_aligned_tensor_starts_on_a_multiple_of_64_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    kept = [torch.empty(n + 1, dtype=torch.uint8) for n in range(9)]  # moves the allocator about
    tensor = aligned_empty(shape, dtype)
    assert (tuple(tensor.shape), tensor.dtype, tensor.is_contiguous()) == (shape, dtype, True)
    assert tensor.numel() == 0 or tensor.data_ptr() % LEAF_ALIGNMENT_BYTES == 0
    assert len(kept) == 9


def test_stacked_is_a_view_of_the_leaf() -> None:
    features = features_of((4, 4, 4))
    stacked = features.stacked()
    assert stacked.shape == (5, 3, 4)
    assert stacked.data_ptr() == features.pooled_bs.data_ptr()
    assert torch.equal(stacked[:, 1], features.pooled_bs[:, 4:8])


def test_stacking_different_dims_says_which_they_are() -> None:
    with pytest.raises(ValueError, match=r"'f1': 8.*split"):
        features_of((4, 8)).stacked()


def test_split_gives_each_feature_its_columns_and_one_gradient_to_the_leaf() -> None:
    features = features_of((4, 8, 1))
    parts = features.split()
    assert [tuple(part.shape) for part in parts] == [(5, 4), (5, 8), (5, 1)]
    seen: list[torch.Tensor] = []
    features.pooled_bs.register_hook(seen.append)  # type: ignore[no-untyped-call]
    (parts[0].sum() + 2 * parts[2].sum()).backward()  # type: ignore[no-untyped-call]
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.tensor([1.0] * 4 + [0.0] * 8 + [2.0]).expand(5, 13))
