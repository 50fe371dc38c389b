"""The plain loop that the modules are for, with the model and the optimizer of a job, over batches of the ragged source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.models.features import PooledFeatures, SequenceFeature
from pipeline.models.optimizer import build_optimizer
from pipeline.modules import EmbeddingBags, Embeddings
from pipeline.rowlog import export_table
from pipeline.session.dense_side import initial_model
from pipeline.session.inspect_rows import newest_checkpoint
from pipeline.session.plan import Plan
from stages.items import RawBatch

Module = EmbeddingBags | Embeddings


def as_mapping(raw: RawBatch) -> dict[str, tuple[torch.Tensor, ...]]:
    """As ``forward`` takes it, with all offsets."""
    return {
        name: tuple(
            torch.from_numpy(array.copy())
            for array in (bags.ids_n, bags.offsets_b, bags.weights_n)
            if array is not None
        )
        for name, bags in raw.features.items()
    }


class Loop:
    """A user's loop with the dense side of ``plan``: ``train`` is one step."""

    def __init__(self, plan: Plan) -> None:
        self.model = initial_model(plan)
        self.optimizer = build_optimizer(self.model, plan.settings.dense_optimizer)

    def logits(self, module: Module, raw: RawBatch) -> torch.Tensor:
        outs = module(as_mapping(raw))
        if isinstance(module, EmbeddingBags):
            dims = tuple(out.shape[1] for out in outs.values())
            features = PooledFeatures(tuple(outs), dims, torch.cat(list(outs.values()), dim=1))
        else:
            sequences = {name: SequenceFeature(out, raw.features[name].offsets_b) for name, out in outs.items()}
            features = PooledFeatures((), (), torch.empty(raw.num_samples, 0), sequences)
        logits: torch.Tensor = self.model(features, torch.from_numpy(raw.dense_bd))
        return logits

    def train(self, module: Module, raw: RawBatch) -> None:
        if not raw.num_samples:  # the pipeline counts it as a step, which changes nothing
            sum(out.sum() for out in module(as_mapping(raw)).values()).backward()
            return
        self.optimizer.zero_grad()
        logits_b = self.logits(module, raw)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits_b, torch.from_numpy(raw.labels_b))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(module.step)


def tables_of(run_dir: Path) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """Every table of a run's newest checkpoint as ``export`` writes it."""
    reader, tables = newest_checkpoint(run_dir), {}
    for spec in reader.tables:
        out = run_dir.parent / f"{run_dir.name}-{spec.name}.npz"
        export_table(reader, spec.name, str(out))
        with np.load(out) as arrays:
            tables[spec.name] = {key: arrays[key] for key in arrays.files}
    return tables


def assert_same_tables(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Ids, weights, states and steps, bit for bit. The generation is not compared."""
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].keys() == other[name].keys()
        assert len(one[name]["ids"])
        for key, values in one[name].items():
            others = other[name][key]
            values, others = (values[:, 1], others[:, 1]) if key == "version" else (values, others)
            assert values.shape == others.shape, (name, key)
            assert values.tobytes() == others.tobytes(), f"{name}.{key} differs"
