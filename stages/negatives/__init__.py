"""negatives: draws negatives for logs of positives."""

from stages.negatives.stage import Negatives, NegativesOptions

__all__ = ["Negatives", "NegativesOptions"]
