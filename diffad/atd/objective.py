"""ATD's objective (its eq. 9) on logits d, high for the in-distribution.

    D: minimise  E_in softplus(-d) + a E_out softplus(d) + (1 - a) E_generated softplus(d)
    G: minimise  E_generated softplus(-d)          (non-saturating)

softplus(-d) = -log sigmoid(d) and softplus(d) = -log(1 - sigmoid(d)), so this is the paper's binary cross entropy
without its saturation.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from diffad.atd.network import Judged


def discriminator_loss(judged: Judged, alpha: float) -> Float[Tensor, ""]:
    """Return the discriminator's loss, each term the mean over its images; without a generator, without its term.

    An empty open set (alpha 0) has no term either.
    """
    loss = F.softplus(-judged.inside.float()).mean()
    if len(judged.outside):
        loss = loss + alpha * F.softplus(judged.outside.float()).mean()
    if judged.generated is not None:
        loss = loss + (1.0 - alpha) * F.softplus(judged.generated.float()).mean()
    return loss


def generator_loss(judged: Judged) -> Float[Tensor, ""]:
    """Return the generator's non-saturating loss."""
    assert judged.fooling is not None
    return F.softplus(-judged.fooling.float()).mean()
