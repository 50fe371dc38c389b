"""What can go wrong with an optimizer of your own."""

from __future__ import annotations


class OptimizerError(ValueError):
    """It is not found, or what was found is no optimizer."""
