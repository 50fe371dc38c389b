"""What travels between the built-in stages. Frozen; a stage makes a new item from the old one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from cuda.plan import BatchIds, Matrix, UniqueIds
    from pipeline.models.features import PooledFeatures
    from pipeline.store import Reservation

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeatureIds:
    """The bags of one feature: sample b owns ``ids_n[offsets_b[b]:offsets_b[b + 1]]``; ``offsets_b`` is [B + 1], from 0 to n."""

    ids_n: Int64s
    offsets_b: Int64s
    weights_n: Float32s | None = None
    identities_nk: Int64s | None = None
    """The raw ids behind each id, for tables that keep ``identities``."""
    metadata_nm: npt.NDArray[Any] | None = None
    """Numbers that go along with each id, of the dtype of the table's ``metadata``."""

    @property
    def nbytes(self) -> int:
        beside = sum(part.nbytes for part in self.beside if part is not None)
        return int(self.ids_n.nbytes + self.offsets_b.nbytes + beside)

    @property
    def beside(self) -> tuple[npt.NDArray[Any] | None, ...]:
        """What there is for each id besides it, in the order of the fields."""
        return self.weights_n, self.identities_nk, self.metadata_nm


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Samples as they come from a log. ``cursor`` says where the source stood behind the batch (for error messages)."""

    num_samples: int
    features: Mapping[str, FeatureIds]
    dense_bd: Float32s
    """[B, number of dense columns], the second size may be 0."""
    labels_b: Float32s
    """[B]; logs of positives only have ones here, before ``negatives``."""
    cursor: Mapping[str, Any] = field(default_factory=dict)
    first_row: int = 0
    """Number of the first sample in the source's order, counted from the start of the first epoch."""

    @property
    def nbytes(self) -> int:
        return sum(f.nbytes for f in self.features.values()) + int(self.dense_bd.nbytes + self.labels_b.nbytes)


@dataclass(frozen=True, slots=True)
class DistinctBatch(RawBatch):
    """A batch whose distinct ids are known. Made from a RawBatch, never without its last two fields."""

    batch: BatchIds = None  # type: ignore[assignment]
    unique: UniqueIds = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class SlotBatch:
    """A batch whose distinct rows have pinned slots. They are in them when ``Store.read_misses`` of its reservation has returned: at
    once, unless they come from a disk.
    """

    step: int
    raw: RawBatch
    reservation: Reservation | None
    """None for a batch without samples: it is a step that changes nothing."""

    @property
    def nbytes(self) -> int:
        return self.raw.nbytes


@dataclass(frozen=True, slots=True)
class LookedUp:
    """A batch with its pooled rows as autograd leaves."""

    step: int
    raw: RawBatch
    reservation: Reservation | None
    features: PooledFeatures | None

    @property
    def nbytes(self) -> int:
        return self.raw.nbytes


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model said of a batch before it was trained on it. Shapes [B]."""

    logits_b: Float32s
    labels_b: Float32s


@dataclass(frozen=True, slots=True)
class Trained:
    """A batch after backward: dL/d out of each feature, and the dense gradients in the model."""

    step: int
    num_samples: int
    reservation: Reservation | None
    grads_f: Sequence[Matrix | None]
    scores: Scores | None = None


@dataclass(frozen=True, slots=True)
class Stepped:
    """A step that has ended: rows and dense weights are those of ``step`` or later."""

    step: int
    num_samples: int
    reservation: Reservation | None
    scores: Scores | None = None
    """None once they are counted, and for a batch without samples."""
