"""Rowstream: tiered embedding tables, trained by a staged asyncio pipeline and streamed to replicas.

Importing this package loads nothing heavy; each room is imported by name (``pipeline.flow``, ``pipeline.store``, ...).
"""

__version__ = "0.1.0"
