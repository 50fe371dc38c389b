"""With the environment pinned, a model gives the same bits wherever its inputs lie in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch
from pipeline.models.factory import ModelInputs, build_model
from pipeline.models.features import PooledFeatures

torch.set_num_threads(1)
bad = 0
names, dims = ("a", "b"), (64, 64)
for num_dense, interaction, top in ((13, "dot", [256, 128, 1]), (0, "cat", [1])):
    options = {"top_mlp": top, "interaction": interaction}
    model = build_model("dlrm", options, ModelInputs(names, dims, num_dense=num_dense), 1)
    for batch in (2048, 333):
        leaf, dense = torch.randn(batch, 128), torch.randn(batch, num_dense)
        seen = set()
        for skip in range(16):
            room = torch.empty(batch * 128 + 16)
            moved = room[skip : skip + leaf.numel()].view(leaf.shape).copy_(leaf).detach().requires_grad_()
            room = torch.empty(batch * num_dense + 16)
            other = room[skip : skip + dense.numel()].view(dense.shape).copy_(dense)
            model.zero_grad()
            out = model(PooledFeatures(names, dims, moved), other)
            out.sigmoid().sum().backward()
            grads = [moved.grad, *(p.grad for p in model.parameters())]
            seen.add(b"".join(t.detach().numpy().tobytes() for t in (out, *grads)))
        bad += len(seen) - 1
print("other bits:", bad)
"""


def other_bits(**variables: str) -> int:
    environment = {key: value for key, value in os.environ.items() if key not in {"MKL_CBWR", "MKL_DYNAMIC"}}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=True)
    return int(done.stdout.rpartition(":")[2])


@pytest.mark.skipif(sys.platform != "linux" or "avx2" not in Path("/proc/cpuinfo").read_text(), reason="needs AVX2")
def test_a_misaligned_input_changes_no_bit_when_mkl_is_pinned() -> None:
    assert other_bits(MKL_CBWR="AVX2,STRICT", MKL_DYNAMIC="FALSE", OMP_DYNAMIC="FALSE") == 0
