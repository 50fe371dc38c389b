"""What a batch brings for meta columns, beside its ids."""

from __future__ import annotations

from dataclasses import replace

from cuda.plan import BatchIds, FeatureSet
from pipeline.store.meta import batch_meta, fault
from stages.batch_ids import batch_ids
from stages.errors import WrongMeta
from stages.items import FeatureIds, RawBatch

COLUMNS = {"identity": "identities_nk", "metadata": "metadata_nm"}
"""By column of the rows, where a batch has what is for it."""


def whole_batch(raw: RawBatch, features: FeatureSet) -> BatchIds:
    """Ids and meta columns, as a training step needs them. Raises MissingFeature, WrongMeta."""
    batch = batch_ids(raw, features)
    parts_f = [raw.features[name] for name in features.names]
    if all(part.identities_nk is None and part.metadata_nm is None for part in parts_f):
        return batch
    given = {column: [getattr(part, field) for part in parts_f] for column, field in COLUMNS.items()}
    for column, values_f in given.items():
        for f, values in enumerate(values_f):
            wrong = None if values is None else fault(features, f, column, values, _count(parts_f[f]))
            if wrong is not None:
                raise WrongMeta(features.names[f], wrong, raw.cursor)
    return replace(batch, meta=batch_meta(features, given))


def _count(part: FeatureIds) -> int:
    return int(part.ids_n.shape[0])
