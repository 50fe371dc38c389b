"""Rowstream: tiered embedding tables, trained by a staged asyncio pipeline and streamed to replicas.

Importing this package loads nothing heavy; each room is imported by name (``pipeline.flow``, ``pipeline.store``, ...), and the modules
when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.modules import EmbeddingBags as EmbeddingBags
    from pipeline.modules import Embeddings as Embeddings

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("EmbeddingBags", "Embeddings"):
        from pipeline import modules

        return getattr(modules, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
