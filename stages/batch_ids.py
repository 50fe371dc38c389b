"""From the features of a batch to the arrays a backend takes."""

from __future__ import annotations

import numpy as np

from cuda.plan import BatchIds, FeatureSet
from stages.errors import MissingFeature
from stages.items import RawBatch


def batch_ids(raw: RawBatch, features: FeatureSet) -> BatchIds:
    """Put a batch's features one behind the other, in the order of ``features``. Raises MissingFeature."""
    missing = [name for name in features.names if name not in raw.features]
    if missing:
        raise MissingFeature(missing, list(raw.features), raw.cursor)
    parts = [raw.features[name] for name in features.names]
    counts = np.array([part.ids_n.shape[0] for part in parts], dtype=np.int64)
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    weights = None
    if any(part.weights_n is not None for part in parts):
        ones = [
            np.ones(part.ids_n.shape[0], np.float32) if part.weights_n is None else part.weights_n for part in parts
        ]
        weights = np.ascontiguousarray(np.concatenate(ones), dtype=np.float32)
    return BatchIds(
        features=features,
        num_samples=raw.num_samples,
        ids_n=np.concatenate([part.ids_n for part in parts]).astype(np.int64, copy=False),
        feature_start_f=starts,
        offsets_fb=np.stack([part.offsets_b + start for part, start in zip(parts, starts[:-1], strict=True)]),
        weights_n=weights,
    )
