"""TorchRec, where it is installed: `make .venv/.peers`."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any

import pytest


def torchrec() -> Any:
    """Skips the test, and says why, where it cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("torchrec")
    except ImportError as error:
        pytest.skip(f"TorchRec is not installed ({error}); tests/modules/peers.py says how")


def fbgemm_bags(tables: list[tuple[int, int]], features: list[int], mean: bool, **optimizer: Any) -> Any:
    """FBGEMM's table batched embeddings on the host: ``tables`` (rows, dim), ``features`` the table of each, ``optimizer`` as it names
    its own. Skips the test where fbgemm-gpu-cpu is not installed; where it is and cannot be loaded, that is an error.
    """
    if importlib.util.find_spec("fbgemm_gpu") is None:
        pytest.skip("fbgemm-gpu-cpu is not installed: pip install --no-deps fbgemm-gpu-cpu==1.8.0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
            WeightDecayMode,
        )

        named = {
            "optimizer": EmbOptimType[optimizer.pop("optimizer")],
            "weight_decay_mode": WeightDecayMode[optimizer.pop("weight_decay_mode", "NONE")],
        }
        return SplitTableBatchedEmbeddingBagsCodegen(
            [(rows, dim, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows, dim in tables],
            feature_table_map=features,
            pooling_mode=PoolingMode.MEAN if mean else PoolingMode.SUM,
            **named,
            **optimizer,
        )
