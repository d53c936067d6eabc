"""Out-of-distribution scores of a classifier: from its logits, or from Gaussians on its features."""

from diffad.ood_scores.logit_scores import Energy, MaximumSoftmax, MaxLogit
from diffad.ood_scores.mahalanobis import Mahalanobis, RelativeMahalanobis
from diffad.ood_scores.on_backbone import BackboneScore
from diffad.ood_scores.openmax import OpenMax

__all__ = [
    "BackboneScore",
    "Energy",
    "Mahalanobis",
    "MaxLogit",
    "MaximumSoftmax",
    "OpenMax",
    "RelativeMahalanobis",
]
