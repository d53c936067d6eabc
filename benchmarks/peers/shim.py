"""An anomaly score as the classifier that attack libraries expect, and a count of what they ask of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from certify.types import FloatArray


class CountedScore(nn.Module):
    """The score of a detector; counts the images scored, and those of them that were differentiated."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector.eval()
        self.scored = self.differentiated = 0

    def forward(self, images: Tensor) -> Tensor:
        """Score (b,) of images (b, c, h, w)."""
        self.scored += len(images)
        scores: Tensor = self.detector.score(images)
        if scores.requires_grad:
            scores.register_hook(self._note)
        return scores

    def _note(self, gradient: Tensor) -> None:
        self.differentiated += len(gradient)

    def take_counts(self) -> tuple[int, int]:
        """Return (scored, differentiated) since the last call."""
        counts = self.scored, self.differentiated
        self.scored = self.differentiated = 0
        return counts


class TwoLogits(nn.Module):
    """Logits b * (threshold - score, score - threshold): class 0 is normal, class 1 is anomalous.

    The cross-entropy of one class is a monotone function of its score, softplus(+-2 b (score - threshold)), so that
    the peers climb the score itself. Two things would spoil that, and are set for each class of images apart:

    - attacks stop at images that are "already misclassified", so the threshold lies behind all clean scores;
    - in float32 the cross-entropy is flat below a margin of about -15, so b keeps the clean ones above -6.
    """

    def __init__(self, score: nn.Module, clean_scores: FloatArray, anomalous: bool) -> None:
        super().__init__()
        self.score = score
        low, high = float(clean_scores.min()), float(clean_scores.max())
        room = max(0.01 * (high - low), 1e-3)
        self.threshold = low - room if anomalous else high + room
        self.scale = 3.0 / (high - low + room)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, 2)."""
        # some peers leave [0, 1] by a rounding; a plain clamp may have no gradient at 0 and 1 themselves
        inside = images + (images.detach().clamp(0.0, 1.0) - images.detach())
        margin = self.scale * (self.score(inside) - self.threshold)
        return torch.stack([-margin, margin], dim=1)
