"""A user's own source, in a file of its own: ragged random bags with duplicates, some of them empty, some samples too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from pipeline.flow import Source, StageOptions
from stages.items import FeatureIds, RawBatch

EXTREMES = np.array([np.iinfo(np.int64).min, -1, 0, np.iinfo(np.int64).max], dtype=np.int64)


class RaggedOptions(StageOptions):
    seed: int = Field(0, description="of everything")
    batches: int = Field(50, description="how many")
    samples: int = Field(24, description="the most samples in a batch; sizes vary from 0")
    features: list[str] = Field(description="names")
    weighted: bool = Field(False, description="give every occurrence a weight")
    num_dense: int = Field(3, description="dense columns")
    vocabulary: int = Field(400, description="distinct ids, the extremes of int64 among them")
    identities: dict[str, int] = Field(
        default_factory=dict, description="numbers for each id, by feature; most batches"
    )
    metadata: dict[str, tuple[str, int]] = Field(default_factory=dict, description="(dtype, numbers), likewise")


class RaggedSource(Source):
    """Batch k is a pure function of (seed, k)."""

    Options: ClassVar[type[StageOptions]] = RaggedOptions
    produces = RawBatch

    def __init__(self, options: RaggedOptions) -> None:
        super().__init__(options)
        self._next = 0

    async def items(self) -> AsyncIterator[Any]:
        while self._next < self.options.batches:
            self._next += 1
            yield make_batch(self.options, self._next - 1)

    def state(self) -> Any:
        return {"next": self._next}

    def restore(self, state: Any) -> None:
        self._next = int(state["next"])


def make_batch(options: RaggedOptions, number: int) -> RawBatch:
    rng = np.random.default_rng([options.seed, number])
    size = 0 if number % 17 == 5 else int(rng.integers(1, options.samples + 1))
    vocabulary = np.concatenate([EXTREMES, np.arange(1000, 1000 + options.vocabulary - EXTREMES.size)])
    features = {}
    for name in options.features:
        lengths = rng.integers(0, 5, size)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids = vocabulary[(rng.zipf(1.15, offsets[-1]) - 1) % vocabulary.size]
        weights = rng.uniform(-1, 1, ids.size).astype(np.float32) if options.weighted else None
        features[name] = FeatureIds(ids.astype(np.int64), offsets, weights, *_meta(options, number, name, ids.size))
    dense = rng.normal(size=(size, options.num_dense)).astype(np.float32)
    labels = (rng.random(size) < 0.4).astype(np.float32)
    return RawBatch(size, features, dense, labels, {"batch": number})


def _meta(options: RaggedOptions, number: int, name: str, count: int) -> tuple[Any, Any]:
    """Identities and metadata of a feature's ids, from numbers of their own. Some batches bring none."""
    rng = np.random.default_rng([options.seed, number, *name.encode()])
    identities, metadata = options.identities.get(name), options.metadata.get(name)
    if rng.random() < 0.2:
        return None, None
    made = None
    if metadata is not None:
        made = rng.integers(0, 127, (count, metadata[1])).astype(metadata[0])
    return None if identities is None else rng.integers(-(2**63), 2**63 - 1, (count, identities)), made
