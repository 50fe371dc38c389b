"""The peer's side of the lookup benchmark, in a process of its own: FBGEMM's table batched embeddings on the CPU."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import torch

from tools.bench.lookup_work import BATCH, DIM, EPS, LR, ROWS, TABLES, checked_ids, make_work, serve


class Fbgemm:
    """One forward and backward a step; the optimizer is fused into the backward."""

    def __init__(self, distribution: str, optimizer: str, steps: int, threads: int, start: float = 0.0) -> None:
        """``start``: what weights begin as."""
        torch.set_num_threads(threads)
        warnings.simplefilter("ignore")
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        kind = EmbOptimType[f"EXACT_{optimizer.upper()}"]
        place = (ROWS, DIM, EmbeddingLocation.HOST, ComputeDevice.CPU)
        self._bags: Any = SplitTableBatchedEmbeddingBagsCodegen(
            [place] * TABLES, optimizer=kind, learning_rate=LR, eps=EPS
        )
        for table in self._bags.split_embedding_weights():
            table.fill_(start)
        self._work = make_work(distribution, steps)
        self._offsets = torch.arange(TABLES * BATCH + 1)
        self._gradient = torch.from_numpy(self._work.gradient_bd)
        self._step = 0
        self.knobs = {"threads": torch.get_num_threads(), "torch": torch.__version__}

    def run(self, steps: int) -> None:
        for _ in range(steps):
            ids = torch.from_numpy(self._work.steps_sn[self._step % len(self._work.steps_sn)])
            self._bags(ids, self._offsets).backward(self._gradient)
            self._step += 1

    def rows(self) -> np.ndarray[Any, Any]:
        table: torch.Tensor = self._bags.split_embedding_weights()[0]
        return table[torch.from_numpy(checked_ids(self._work))].numpy()


if __name__ == "__main__":
    serve(Fbgemm(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *map(float, sys.argv[5:])))
