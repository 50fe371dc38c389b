"""The items of a batch's samples, what was drawn for them, and the samples that come of both.

B samples, k draws each, R samples going out; a counts the features that go along with the item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.errors import WrongItems
from stages.items import FeatureIds, Int64s, RawBatch
from stages.negatives.along import from_words, num_words, words_of
from stages.sources.samples import Samples, offsets_of, take_bags

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Items:
    """``along_an``: for each item the id that goes along; ``there_an`` tells where that feature's bag was empty."""

    ids_n: Int64s
    offsets_b: Int64s
    along_an: Int64s
    """[2 a + w, n]: ids of the a features that go along; 1 where there is one and 0 where its bag was empty; then the w numbers that the
    item and each of these features have besides their ids (``along``).
    """

    @staticmethod
    def of(raw: RawBatch, item: str, along: Sequence[str]) -> Items:
        """Raises WrongItems when features are absent or weighted, or when what goes along is not one id for one item."""
        for name in (item, *along):
            if name not in raw.features:
                raise WrongItems(f"there is no feature {name!r}; the batch holds {list(raw.features)}", raw.cursor)
            if raw.features[name].weights_n is not None:
                raise WrongItems(f"feature {name!r} has weights, and a negative has none", raw.cursor)
        bags = raw.features[item]
        along_an, words = np.zeros((2 * len(along), len(bags.ids_n)), np.int64), [words_of(bags)]
        lengths_b = np.diff(bags.offsets_b)
        if along and (lengths_b > 1).any():
            raise WrongItems(f"a sample has several {item!r}, so nothing can go along with one of them", raw.cursor)
        for a, name in enumerate(along):
            found = raw.features[name]
            found_b = np.diff(found.offsets_b)
            if (found_b > 1).any():
                raise WrongItems(f"a sample has several {name!r}, and only one can go along with its item", raw.cursor)
            has_b = (found_b == 1) & (lengths_b == 1)
            at_n, from_n = bags.offsets_b[:-1][has_b], found.offsets_b[:-1][has_b]
            along_an[a, at_n] = found.ids_n[from_n]
            along_an[len(along) + a, at_n] = 1
            words.append(np.zeros((num_words(found), len(bags.ids_n)), np.int64))
            words[-1][:, at_n] = words_of(found)[:, from_n]
        return Items(bags.ids_n, bags.offsets_b, np.concatenate([along_an, *words]))


@dataclass(frozen=True, slots=True)
class Drawn:
    """``there_bk`` is False where nothing was drawn. ``along_abk`` is [2 a + w, B, k], laid out as in ``Items``."""

    there_bk: Bools
    ids_bk: Int64s
    along_abk: Int64s


def assemble(samples: Samples, drawn: Drawn, item: str, along: Sequence[str]) -> Samples:
    """Each sample, followed by its negatives."""
    counts_b = 1 + drawn.there_bk.sum(axis=1)
    order_r = np.repeat(np.arange(samples.num_samples), counts_b)
    negative_r = np.ones(len(order_r), np.bool_)
    negative_r[offsets_of(counts_b)[:-1]] = False
    ids_m, along_am = drawn.ids_bk[drawn.there_bk], drawn.along_abk[:, drawn.there_bk]
    replaced, start = {}, 2 * len(along)
    for a, name in enumerate((item, *along), start=-1):
        bags = samples.features[name]
        start, words_wm = start + num_words(bags), along_am[start : start + num_words(bags)]
        there_m = np.ones(len(ids_m), np.bool_) if a < 0 else along_am[len(along) + a] == 1
        replaced[name] = replace_bags(bags, order_r, negative_r, ids_m if a < 0 else along_am[a], there_m, words_wm)
    labels_r = samples.labels_b[order_r]
    labels_r[negative_r] = 0
    features = {name: replaced.get(name) or take_bags(bags, order_r) for name, bags in samples.features.items()}
    return Samples(len(order_r), features, samples.dense_bd[order_r], labels_r)


def replace_bags(
    bags: FeatureIds, order_r: Int64s, negative_r: Bools, ids_m: Int64s, there_m: Bools, words_wm: Int64s
) -> FeatureIds:
    """The bags of the samples, with ids ``ids_m`` (an empty bag where not ``there_m``) for the negatives, in order, and what goes along."""
    lengths_r = np.diff(bags.offsets_b)[order_r]
    lengths_r[negative_r] = there_m
    offsets_r = offsets_of(lengths_r)
    drawn_n = np.repeat(negative_r, lengths_r)
    ids_n = np.empty(offsets_r[-1], np.int64)
    ids_n[~drawn_n] = bags.ids_n
    ids_n[drawn_n] = ids_m[there_m]
    if not words_wm.shape[0]:
        return FeatureIds(ids_n, offsets_r)
    words_wn = np.empty((words_wm.shape[0], len(ids_n)), np.int64)
    words_wn[:, ~drawn_n] = words_of(bags)
    words_wn[:, drawn_n] = words_wm[:, there_m]
    return FeatureIds(ids_n, offsets_r, None, *from_words(words_wn, bags))
