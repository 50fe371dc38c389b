"""synthetic: made-up samples with ids as skewed as real ones, and planted labels."""

from __future__ import annotations

from math import gcd, sqrt
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.flow.channel import Channel
from pipeline.flow.stage import StageContext, StageOptions
from pipeline.rows.buckets import bucket_ids
from stages.items import FeatureIds, Int64s
from stages.mixing import key_of
from stages.sources import synthetic_kernels as kernels
from stages.sources.blocks import Arranged, Block
from stages.sources.cursor import Cursor
from stages.sources.reuse import reuse_table
from stages.sources.samples import Samples, offsets_of
from stages.sources.source import BatchSource
from stages.sources.synthetic_options import SyntheticFeature, SyntheticOptions

BLOCK_SAMPLES = 8192
IDS, BAGS, WEIGHTS, DENSE, LABELS, TRUTH, SPREAD = range(7)
NAME = "synthetic"


class SampleMaker:
    """Makes samples by position. A pure function of the options, the seed and the position; used on a lane."""

    def __init__(self, options: SyntheticOptions, seed: int) -> None:
        self._options, self._seed = options, seed
        self._spread = {name: self._spread_of(f, feature) for f, (name, feature) in enumerate(options.features.items())}
        self._bins = {
            name: self._bins_of(feature) for name, feature in options.features.items() if feature.reuse is not None
        }
        self._scale = options.signal / sqrt(len(options.features) + options.dense)

    def _spread_of(self, number: int, feature: SyntheticFeature) -> Int64s:
        """A factor without common divisor with ``ids``, small enough that rank * factor stays below 2**62."""
        word = int(key_of(self._options.truth_seed, SPREAD, number))
        factor = word % min(feature.ids, 2**21) + 1
        while gcd(factor, feature.ids) != 1:
            factor += 1
        return np.array([factor, word % feature.ids], dtype=np.int64)

    @staticmethod
    def _bins_of(feature: SyntheticFeature) -> Int64s:
        assert feature.reuse is not None
        table = reuse_table(feature.reuse, feature.ids, feature.period)
        return np.ascontiguousarray(np.stack([table.accesses_i, table.used_i, table.universe_i]))

    def make(self, first: int, count: int) -> Samples:
        """Samples ``first`` .. ``first + count - 1``."""
        logits_b = np.zeros(count)
        features = {
            name: self._bags(f, name, feature, first, logits_b)
            for f, (name, feature) in enumerate(self._options.features.items())
        }
        dense_bd = np.empty((count, self._options.dense), np.float32)
        labels_b = np.empty(count, np.float32)
        truth_key = key_of(self._options.truth_seed, TRUTH, len(features))
        kernels.draw_dense(key_of(self._seed, DENSE), truth_key, first, dense_bd, logits_b)
        kernels.draw_labels(key_of(self._seed, LABELS), first, self._scale, self._options.bias, logits_b, labels_b)
        return Samples(count, features, dense_bd, labels_b)

    def _bags(self, number: int, name: str, feature: SyntheticFeature, first: int, logits_b: Any) -> FeatureIds:
        least, most = feature.bag
        lengths_b = np.full(len(logits_b), most, np.int64)
        if least < most:
            kernels.bag_lengths(key_of(self._seed, BAGS, number), first, least, most, lengths_b)
        offsets_b = offsets_of(lengths_b)
        ids_n = np.empty(offsets_b[-1], np.int64)
        key = key_of(self._seed, IDS, number)
        if feature.reuse is None:
            kernels.zipf_ids(key, first, feature.ids, feature.zipf, self._spread[name], offsets_b, ids_n)
        else:
            truth_key = key_of(self._options.truth_seed, IDS, number)
            kernels.reuse_ids(key, truth_key, first, most, self._bins[name], offsets_b, ids_n)
        weights_n = np.zeros(len(ids_n) if feature.weights else 0, np.float32)
        if feature.weights:
            kernels.draw_weights(key_of(self._seed, WEIGHTS, number), first, offsets_b, weights_n)
        kernels.add_effects(key_of(self._options.truth_seed, TRUTH, number), offsets_b, ids_n, weights_n, logits_b)
        raw_n = ids_n
        if feature.buckets is not None:
            ids_n = bucket_ids(raw_n, feature.buckets)
        beside = identities(raw_n, feature), metadata(first, lengths_b, feature)
        return FeatureIds(ids_n, offsets_b, weights_n if feature.weights else None, *beside)


def identities(raw_n: Int64s, feature: SyntheticFeature) -> Int64s | None:
    """[n, k]: the raw id and those that follow it."""
    return None if feature.identities is None else raw_n[:, None] + np.arange(feature.identities)


def metadata(first: int, lengths_b: Int64s, feature: SyntheticFeature) -> npt.NDArray[Any] | None:
    """[n, width]: multiples of the sample's number, wrapped or rounded as the dtype has it."""
    if feature.metadata is None:
        return None
    numbers_n = np.repeat(first + np.arange(len(lengths_b)), lengths_b)
    return (numbers_n[:, None] * np.arange(1, feature.metadata.width + 1)).astype(feature.metadata.dtype)


class SyntheticSource(BatchSource):
    """Samples out of nothing: skewed ids, labels that hidden weights of the ids explain. Needs no data."""

    Options: ClassVar[type[StageOptions]] = SyntheticOptions

    async def open(self, context: StageContext) -> None:
        await super().open(context)
        self._maker = await self._lane.run(SampleMaker, self.options, self._arranger.plan.seed)

    async def _read(self, channel: Channel[Arranged], begin: Cursor) -> None:
        for epoch in range(begin.epoch, self.options.epochs):
            start = begin.offset if epoch == begin.epoch else 0
            for first in range(start, self.options.samples, BLOCK_SAMPLES):
                await self._send(channel, await self._lane.run(self._make, first))
                if self._arranger.full:
                    break
            await self._send(channel, await self._lane.run(self._arranger.end_epoch))
        await self._send(channel, await self._lane.run(self._arranger.finish))

    def _make(self, first: int) -> list[Arranged]:
        count = min(BLOCK_SAMPLES, self.options.samples - first)
        block = Block(self._maker.make(first, count), NAME, first, 1, 0, np.zeros(0, np.int64))
        return self._arranger.add(block)
