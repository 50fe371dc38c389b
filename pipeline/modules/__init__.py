"""Embedding rows as torch modules, for people with a loop of their own; see README.md."""

from pipeline.modules.embeddings import EmbeddingBags, Embeddings
from pipeline.modules.errors import (
    BackwardAwaited,
    BackwardTwice,
    BadFeatures,
    BadSettings,
    BadState,
    Closed,
    GivenUp,
    ModuleError,
    NeedsDir,
    NotFresh,
    StateTooLarge,
    UnknownFeatures,
)
from pipeline.modules.torchrec_options import MappedOptions, map_options

__all__ = [
    "BackwardAwaited",
    "BackwardTwice",
    "BadFeatures",
    "BadSettings",
    "BadState",
    "Closed",
    "EmbeddingBags",
    "Embeddings",
    "GivenUp",
    "MappedOptions",
    "ModuleError",
    "NeedsDir",
    "NotFresh",
    "StateTooLarge",
    "UnknownFeatures",
    "map_options",
]
