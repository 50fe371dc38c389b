"""Rowstream: tiered embedding tables, trained by a staged asyncio pipeline and streamed to replicas.

Importing this package loads nothing heavy; each room is imported by name (``pipeline.flow``, ``pipeline.store``, ...), and what is
named here when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.modules import EmbeddingBags as EmbeddingBags
    from pipeline.modules import Embeddings as Embeddings
    from pipeline.replica import Replica as Replica
    from pipeline.stream import RowStreamer as RowStreamer

__version__ = "0.1.0"

_ROOMS = {"EmbeddingBags": "modules", "Embeddings": "modules", "Replica": "replica", "RowStreamer": "stream"}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"pipeline.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
