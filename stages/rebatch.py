"""Cuts a stream of samples into batches of one size; what does not fill a batch waits for the next samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.items import FeatureIds, RawBatch
from stages.sources.samples import Samples, join


class Rebatcher:
    """``batch_size`` None: what comes in goes out."""

    def __init__(self, batch_size: int | None) -> None:
        self._batch_size = batch_size
        self._rest: Samples | None = None
        self._cursor: Mapping[str, Any] = {}
        self._sent = 0

    def add(self, samples: Samples, cursor: Mapping[str, Any]) -> list[RawBatch]:
        """Take samples (``cursor`` stands behind them); return the batches that are full."""
        self._cursor = dict(cursor)
        if self._batch_size is None:
            return [self._batch(samples)]
        if self._rest is not None:
            samples, self._rest = join([self._rest, samples]), None
        full = samples.num_samples - samples.num_samples % self._batch_size
        batches = [
            self._batch(samples.cut(start, start + self._batch_size)) for start in range(0, full, self._batch_size)
        ]
        if full < samples.num_samples:
            self._rest = samples.cut(full, samples.num_samples)
        return batches

    def finish(self) -> list[RawBatch]:
        """The rest, if any."""
        rest, self._rest = self._rest, None
        return [] if rest is None else [self._batch(rest)]

    def _batch(self, samples: Samples) -> RawBatch:
        first, self._sent = self._sent, self._sent + samples.num_samples
        return RawBatch(
            samples.num_samples,
            samples.features,
            samples.dense_bd,
            samples.labels_b,
            cursor=self._cursor,
            first_row=first,
        )

    def state(self) -> Any:
        rest = None if self._rest is None else pack(self._rest)
        return {"rest": rest, "cursor": dict(self._cursor), "sent": self._sent}

    def restore(self, state: Any) -> None:
        self._rest = None if state["rest"] is None else unpack(state["rest"])
        self._cursor, self._sent = state["cursor"], int(state["sent"])


def pack(samples: Samples) -> dict[str, Any]:
    """Samples as plain values."""
    return {
        "num_samples": samples.num_samples,
        "num_dense": samples.dense_bd.shape[1],
        "features": {
            name: [
                np.ascontiguousarray(bags.ids_n).tobytes(),
                np.ascontiguousarray(bags.offsets_b).tobytes(),
                None if bags.weights_n is None else np.ascontiguousarray(bags.weights_n).tobytes(),
                *(_pack_lines(part) for part in (bags.identities_nk, bags.metadata_nm)),
            ]
            for name, bags in samples.features.items()
        },
        "dense": np.ascontiguousarray(samples.dense_bd).tobytes(),
        "labels": np.ascontiguousarray(samples.labels_b).tobytes(),
    }


def unpack(state: Mapping[str, Any]) -> Samples:
    """The inverse of ``pack``; features without the last two parts have neither identities nor metadata."""
    count = int(state["num_samples"])
    features = {
        name: FeatureIds(
            np.frombuffer(ids, np.int64).copy(),
            np.frombuffer(offsets, np.int64).copy(),
            None if weights is None else np.frombuffer(weights, np.float32).copy(),
            *map(_unpack_lines, lines),
        )
        for name, (ids, offsets, weights, *lines) in state["features"].items()
    }
    dense_bd = np.frombuffer(state["dense"], np.float32).reshape(count, int(state["num_dense"])).copy()
    return Samples(count, features, dense_bd, np.frombuffer(state["labels"], np.float32).copy())


def _pack_lines(lines_nw: npt.NDArray[Any] | None) -> list[Any] | None:
    return None if lines_nw is None else [str(lines_nw.dtype), lines_nw.shape[1], lines_nw.tobytes()]


def _unpack_lines(packed: Sequence[Any] | None) -> npt.NDArray[Any] | None:
    return None if packed is None else np.frombuffer(packed[2], packed[0]).reshape(-1, packed[1]).copy()
