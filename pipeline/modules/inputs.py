"""What a forward is given, checked and put into the arrays of a batch. Legend as in ``cuda.plan``.

Two forms: a mapping from feature to ids, (ids, offsets) or (ids, offsets, weights), with the conventions of ``torch.nn.EmbeddingBag``;
or a TorchRec ``KeyedJaggedTensor``, known by what it can do, so that TorchRec is never imported here. Ids are copied; weights are not.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from cuda.plan import NONE, BatchIds, FeatureSet, Float32s, Int64s
from pipeline.modules.errors import BadFeatures, UnknownFeatures
from pipeline.store.meta import batch_meta, fault

INTEGERS = (torch.int64, torch.int32)
JAGGED = ("keys", "values", "offsets", "weights_or_none", "stride")


@dataclass(frozen=True, slots=True)
class Bags:
    """One feature. ``width``: ids per sample where they came as a matrix."""

    ids_n: Int64s
    offsets_b: Int64s
    """[B + 1]"""
    weights_n: torch.Tensor | None
    width: int | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """A batch, and what its outputs depend on besides. ``bags_f`` are in the order of the module's features."""

    batch: BatchIds
    bags_f: tuple[Bags, ...]
    jagged: Any | None
    """The KeyedJaggedTensor it came as."""

    @property
    def weights_f(self) -> tuple[torch.Tensor | None, ...]:
        return tuple(bags.weights_n for bags in self.bags_f)


def read_inputs(given: Any, features: FeatureSet, include_last_offset: bool) -> Inputs:
    """Raises BadFeatures for anything that is no batch of these features."""
    if is_jagged(given):
        bags_f = _of_jagged(given, features)
        return Inputs(_batch(bags_f, features), bags_f, given)
    if not isinstance(given, Mapping):
        raise BadFeatures(
            "forward",
            f"a mapping from feature to (ids, offsets[, weights]) or a KeyedJaggedTensor is needed, not {type(given).__name__}",
        )
    _check_names("the mapping", list(given), features)
    bags_f = tuple(
        _of_entry(given[name], f"feature {name!r}", include_last_offset, bool(features.poolings_f[f] == NONE))
        for f, name in enumerate(features.names)
    )
    sizes = {name: bags.offsets_b.shape[0] - 1 for name, bags in zip(features.names, bags_f, strict=True)}
    if len(set(sizes.values())) > 1:
        raise BadFeatures("forward", f"features have different numbers of samples: {sizes}")
    return Inputs(_batch(bags_f, features), bags_f, None)


def with_meta(inputs: Inputs, given: Mapping[str, Mapping[str, Any] | None]) -> Inputs:
    """The same with values for meta columns: ``given`` by column of the rows, then by feature, each [n, width] for the feature's n ids.

    Raises BadFeatures, which names the feature, what is needed and what came.
    """
    brought = {column: of_features for column, of_features in given.items() if of_features}
    if not brought:
        return inputs
    features = inputs.batch.features
    found: dict[str, list[Any]] = {column: [None] * len(features.names) for column in brought}
    for column, of_features in brought.items():
        unknown = [name for name in of_features if name not in features.names]
        if unknown:
            raise UnknownFeatures(f"the mapping of {column}", unknown, [], features.names)
        for f, name in enumerate(features.names):
            if of_features.get(name) is not None:
                found[column][f] = _lines(of_features[name], column, f, inputs)
    return replace(inputs, batch=replace(inputs.batch, meta=batch_meta(features, found)))


def _lines(given: Any, column: str, f: int, inputs: Inputs) -> Any:
    """[n, width], a copy: the batch may be used later. A bag in each row of a matrix of ids may have its lines in three dimensions."""
    where, bags = f"feature {inputs.batch.features.names[f]!r}", inputs.bags_f[f]
    if isinstance(given, torch.Tensor):
        _check_host(given, f"{where}: {column}")
    try:
        values = np.array(as_array(given))
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadFeatures(where, f"values for {column} are no array ({error})") from None
    count = bags.ids_n.shape[0]
    if bags.width is not None and values.ndim == 3 and values.shape[:2] == (bags.offsets_b.shape[0] - 1, bags.width):
        values = values.reshape(count, values.shape[2])
    wrong = fault(inputs.batch.features, f, column, values, count)
    if wrong is not None:
        raise BadFeatures(where, wrong)
    return values


def as_array(given: Any) -> Any:
    """A tensor as an array of numpy's, bfloat16 widened to float32; anything else as it is."""
    if not isinstance(given, torch.Tensor):
        return given
    tensor = given.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def is_jagged(given: Any) -> bool:
    return all(callable(getattr(given, name, None)) for name in JAGGED) and not isinstance(given, Mapping)


def twin_class(jagged: Any, name: str) -> Any:
    """The class ``name`` (KeyedTensor, JaggedTensor) of the module that the KeyedJaggedTensor's class is from."""
    return getattr(sys.modules[type(jagged).__module__], name)


def _check_names(where: str, found: list[str], features: FeatureSet) -> None:
    unknown = [name for name in found if name not in features.names]
    missing = [name for name in features.names if name not in found]
    if unknown or missing or len(set(found)) != len(found):
        raise UnknownFeatures(where, unknown, missing, features.names)


def _of_entry(entry: Any, where: str, include_last: bool, unpooled: bool) -> Bags:
    parts = entry if isinstance(entry, tuple | list) and not _is_numbers(entry) else (entry,)
    if not 1 <= len(parts) <= 3:
        raise BadFeatures(where, f"{len(parts)} values; give ids, (ids, offsets) or (ids, offsets, weights)")
    ids, offsets, weights = (*parts, None, None)[:3]
    ids_n = _integers(ids, f"{where}: ids")
    width = None
    if ids_n.ndim == 2:
        if offsets is not None:
            raise BadFeatures(where, "ids are a matrix, a bag in each row, so there are no offsets to give; give None")
        width = int(ids_n.shape[1])
        offsets_b = np.arange(ids_n.shape[0] + 1, dtype=np.int64) * width
    elif ids_n.ndim == 1 and offsets is not None:
        offsets_b = _offsets(_integers(offsets, f"{where}: offsets"), ids_n.shape[0], where, include_last)
    elif ids_n.ndim == 1 and unpooled:
        offsets_b = np.arange(ids_n.shape[0] + 1, dtype=np.int64)
    else:
        raise BadFeatures(where, f"ids of shape {tuple(ids_n.shape)}; give a matrix, or one dimension with offsets")
    return Bags(ids_n.reshape(-1), offsets_b, _weights(weights, ids_n.shape, where), width)


def _is_numbers(entry: Any) -> bool:
    return all(isinstance(one, int) for one in entry) and len(entry) > 0


def _of_jagged(given: Any, features: FeatureSet) -> tuple[Bags, ...]:
    where, keys = "the KeyedJaggedTensor", list(given.keys())
    _check_names(where, keys, features)
    if callable(getattr(given, "variable_stride_per_key", None)) and given.variable_stride_per_key():
        raise BadFeatures(where, "its keys have different numbers of samples (stride_per_key); give it one stride")
    ids_n, weights = _integers(given.values(), f"{where}: values"), given.weights_or_none()
    offsets = _integers(given.offsets(), f"{where}: offsets")
    samples, rest = divmod(offsets.shape[0] - 1, len(keys))
    if ids_n.ndim != 1 or offsets.ndim != 1 or rest or samples < 0 or samples != given.stride():
        raise BadFeatures(
            where,
            f"values of shape {ids_n.shape} and offsets of shape {offsets.shape}; for {len(keys)} keys and stride {given.stride()} "
            f"there are {len(keys) * given.stride() + 1} offsets",
        )
    offsets = _offsets(offsets, ids_n.shape[0], where, include_last=True)
    weights_n = _weights(weights, ids_n.shape, where)
    found = {}
    for k, key in enumerate(keys):
        own = offsets[k * samples : (k + 1) * samples + 1]
        part = slice(int(own[0]), int(own[-1]))
        found[key] = Bags(ids_n[part], own - own[0], None if weights_n is None else weights_n[part])
    return tuple(found[name] for name in features.names)


def _integers(given: Any, where: str) -> Int64s:
    """int64, on the host. Raises BadFeatures."""
    if isinstance(given, np.ndarray | list | tuple):
        try:
            given = torch.as_tensor(_writable(given))
        except TypeError as error:
            raise BadFeatures(where, str(error)) from None
    if not isinstance(given, torch.Tensor):
        raise BadFeatures(where, f"a tensor is needed, not {type(given).__name__}")
    _check_host(given, where)
    if given.dtype not in INTEGERS:
        raise BadFeatures(where, f"they are {given.dtype}; int64 or int32 are needed")
    return given.detach().to(torch.int64).contiguous().numpy()


def _writable(given: Any) -> Any:
    """An array that torch takes without a warning: logs yield some that are read only."""
    array = np.asarray(given)
    return array if array.flags.writeable else array.copy()


def _check_host(given: torch.Tensor, where: str) -> None:
    if given.device.type != "cpu":
        raise BadFeatures(where, f"they are on {given.device}, and the rows are on the host: use .cpu()")
    if given.layout != torch.strided or given.is_meta:
        raise BadFeatures(where, f"the tensor is {given.layout} on {given.device}; a dense one on the host is needed")


def _offsets(offsets_b: Int64s, count: int, where: str, include_last: bool) -> Int64s:
    """[B + 1]. Raises BadFeatures unless they rise from 0 to ``count``."""
    if offsets_b.ndim != 1 or (include_last and not offsets_b.shape[0]):
        raise BadFeatures(where, f"offsets of shape {tuple(offsets_b.shape)}; one dimension is needed")
    if not include_last:
        offsets_b = np.append(offsets_b, np.int64(count))
    if offsets_b[0] != 0:
        raise BadFeatures(where, f"offsets begin with {offsets_b[0]}, not with 0")
    falls = np.flatnonzero(np.diff(offsets_b) < 0)
    if falls.shape[0]:
        at = int(falls[0])
        last = ", the number of ids," if at + 2 == offsets_b.shape[0] else ""
        raise BadFeatures(
            where, f"offsets fall: {offsets_b[at]} is followed by {offsets_b[at + 1]}{last} at position {at + 1}"
        )
    if offsets_b[-1] != count:
        raise BadFeatures(where, f"offsets end with {offsets_b[-1]}, and there are {count} ids")
    return offsets_b


def _weights(given: Any, shape: tuple[int, ...], where: str) -> torch.Tensor | None:
    """As a vector, still part of its graph."""
    if given is None:
        return None
    weights = given if isinstance(given, torch.Tensor) else torch.as_tensor(_writable(given))
    _check_host(weights, f"{where}: weights")
    if weights.dtype != torch.float32 or tuple(weights.shape) != tuple(shape):
        raise BadFeatures(
            where,
            f"weights are {weights.dtype} of shape {tuple(weights.shape)}; torch.float32 of {tuple(shape)}, one an id, are needed",
        )
    return weights.reshape(-1)


def _batch(bags_f: tuple[Bags, ...], features: FeatureSet) -> BatchIds:
    counts = np.array([bags.ids_n.shape[0] for bags in bags_f], dtype=np.int64)
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    if starts[-1] > np.iinfo(np.int32).max:
        raise BadFeatures("forward", f"{starts[-1]} ids in one batch; at most {np.iinfo(np.int32).max} can be")
    return BatchIds(
        features=features,
        num_samples=bags_f[0].offsets_b.shape[0] - 1,
        ids_n=np.concatenate([bags.ids_n for bags in bags_f]),
        feature_start_f=starts,
        offsets_fb=np.stack([bags.offsets_b + start for bags, start in zip(bags_f, starts[:-1], strict=True)]),
        weights_n=_all_weights(bags_f),
    )


def _all_weights(bags_f: tuple[Bags, ...]) -> Float32s | None:
    if all(bags.weights_n is None for bags in bags_f):
        return None
    parts: list[Float32s] = [
        np.ones(bags.ids_n.shape[0], np.float32) if bags.weights_n is None else bags.weights_n.detach().numpy()
        for bags in bags_f
    ]
    return np.ascontiguousarray(np.concatenate(parts))
