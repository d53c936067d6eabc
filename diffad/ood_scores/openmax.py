"""OpenMax: how much of the activation of the likely classes belongs to none of them (Bendale and Boult, CVPR 2016)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError
from certify.types import ScoreFunction
from diffad.ood_scores.logit_scores import energy
from diffad.ood_scores.on_backbone import BackboneScore
from diffad.ood_scores.weibull import TRANSLATION, fit_tail


class OpenMax(BackboneScore):
    """Log-odds of the unknown class.

    Each class has the mean of its logits over the training images, and a Weibull law of the largest distances from
    there. An image takes from its likeliest classes the share w of activation that their laws find too far away, the
    most from the first, and gives it to the unknown class, v_0:

        share_k = w_k (A + 1 - rank_k) / A for the first A classes,   v_0 = sum z_k share_k,   z_k <- z_k (1 - share_k)
        score = v_0 - logsumexp_k z_k

    The softmax probability of the unknown class is the sigmoid of the score: the same ranks, but flat where it is 0
    or 1. The score jumps where two classes change ranks, as it does in the paper.

    A class of the network without training images has w = 1. Means are over all images of a class, as in pytorch-ood
    (the paper: over those classified correctly), whose score of an image depends on the batch around it: it measures
    no distance to a class that no other image of the batch is given to.

    Args:
        tail_size: distances that a law is fitted to, at most.
        top_classes: A, the classes that give activation away (alpha in the paper); at most all.
    """

    name: ClassVar[str] = "openmax"
    centres: Tensor
    laws: Tensor
    known: Tensor

    def __init__(self, tail_size: int = 25, top_classes: int = 10) -> None:
        super().__init__()
        for name, value, least in (("tail_size", tail_size, 3), ("top_classes", top_classes, 1)):
            if value < least:
                raise InputError(f"openmax: got {name} = {value}, need at least {least}")
        self.tail_size, self.top_classes = tail_size, top_classes
        for name in ("centres", "laws"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))
        self.register_buffer("known", torch.empty(0, dtype=torch.bool))

    def _fit_classes(self, train: Tensor) -> None:
        labels, names = self._seen_classes(train)
        unknown = sorted(set(names) - set(self.class_names))
        if unknown:
            raise InputError(
                f"openmax: got training images of class {', '.join(unknown)}; the network knows "
                f"{', '.join(self.class_names)}"
            )
        logits = self._collect(self.logits, train)
        self._fit_laws(logits, torch.tensor([self.class_names.index(name) for name in names])[labels])
        self.fit_info["classes"] = int(self.known.sum())

    def _fit_laws(self, logits: Tensor, labels: Tensor) -> None:
        """Set centre and law of every class that has images; those without keep a law that is never asked."""
        count = logits.shape[1]
        self.centres, self.laws = logits.new_zeros(count, count), logits.new_ones(count, 3)
        self.known = torch.zeros(count, dtype=torch.bool, device=logits.device)
        for k in sorted(set(labels.tolist())):
            own = logits[labels.to(logits.device) == k]
            self.centres[k] = own.mean(0)
            distances = torch.linalg.vector_norm(own - self.centres[k], dim=1).cpu().numpy()
            try:
                law = fit_tail(np.asarray(distances, dtype=np.float64), self.tail_size)
            except InputError as error:
                raise InputError(f"openmax: class {self.class_names[k]!r}: {error}") from None
            self.laws[k], self.known[k] = self.laws.new_tensor(law), True

    def too_far(self, logits: Float[Tensor, "b classes"]) -> Float[Tensor, "b classes"]:
        """Return w: the probability under each class's law of a smaller distance than this; 1 without a law."""
        distances = torch.linalg.vector_norm(logits[:, None] - self.centres, dim=2)
        shape, log_scale, least = self.laws.T
        exponent = shape * ((distances - least + TRANSLATION).clamp(min=1e-9).log() - log_scale)
        # beyond exp(50) the probability is 1 to the last bit, and the exponential of it would overflow
        return torch.where(self.known, -torch.expm1(-exponent.clamp(max=50.0).exp()), 1.0)

    def unknown_log_odds(self, logits: Float[Tensor, "b classes"]) -> Float[Tensor, " b"]:
        """Return the score of logits."""
        logits = logits.to(self.centres)
        first = min(self.top_classes, logits.shape[1])
        share = self.too_far(logits) * (first - ranks(logits.detach())).clamp(min=0) / first
        return (logits * share).sum(1) - torch.logsumexp(logits * (1.0 - share), 1)

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return self.unknown_log_odds(self.logits(images)).to(images)

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return `energy` of the logits, which does not jump where classes change ranks."""
        return {"energy": lambda images: energy(self.logits(images), 1.0).to(images)}


def ranks(logits: Float[Tensor, "b classes"]) -> Float[Tensor, "b classes"]:
    """Return how many classes come before each one: those of a larger logit, and of equal ones the earlier.

    Counted and not sorted: ONNX has no stable sort.
    """
    mine, other = logits[:, :, None], logits[:, None, :]
    place = torch.arange(logits.shape[1], device=logits.device)
    before = (other > mine) | ((other == mine) & (place < place[:, None]))
    return before.sum(2).to(logits.dtype)
