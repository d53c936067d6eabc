"""The score of COBRA's released code, an ensemble after CSI (Tack et al. 2020), made a function of one image.

    normality = mean over shifts k of  max_i <z_k, n_ki> / mean_j |z_kj|  +  logit_k / mean_j logit_kj

z_k is the embedding of the image under shift k, averaged over views, n_ki the direction of that of normal image i, and
the means run over the normals; the score is minus the normality. Shifts are the quarter turns of a head with four
classes; a binary head has the image itself alone, its other shift being a random transform. A mean logit may be
negative, and then turns the sign of its term, as it does there.

What differs from the released code: the ten views are drawn once and are the same for every image, where that code
draws anew by the place of an image in its batch. The colour jitter has the identity for a gradient, as there: the
gradient of this score is approximate.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from diffad.data.transforms import LightView
from diffad.data.transforms.base import scalar
from diffad.data.transforms.colour import grey, jitter
from diffad.data.transforms.geometry import crop
from diffad.neighbours import nearest

VIEWS = 10
_VIEW = LightView(
    area=(0.54, 0.54), flip=True
)  # the released evaluation keeps 54 % of the area of small images
# images -> embeddings (b, d), class scores (b, k)
Outputs = Callable[[Tensor], tuple[Tensor, Tensor]]


def view(images: Float[Tensor, "b c h w"], number: int, *, exact: bool = False) -> Float[Tensor, "b c h w"]:
    """Return the images under the view of this number, the same for all; with `exact` the gradient of the jitter is."""
    drawn = _VIEW.draw_all([number] * len(images), images)
    result = crop(images, drawn["share"], drawn["x"], drawn["y"])
    result = torch.where(scalar(drawn["flipped"]).bool(), result.flip(-1), result)
    coloured = torch.where(scalar(drawn["jittered"]).bool(), jitter(result, drawn), result)
    coloured = torch.where(scalar(drawn["greyed"]).bool(), grey(coloured).expand_as(coloured), coloured)
    return coloured if exact else result + (coloured - result).detach()


def ensemble_outputs(
    outputs: Outputs, images: Float[Tensor, "b c h w"], shifts: int, *, exact: bool = False
) -> tuple[Float[Tensor, "b shifts d"], Float[Tensor, "b shifts"]]:
    """Return the embedding of each shift and the class score of that shift, both averaged over the views."""
    embeddings, scores = [], []
    for shift in range(shifts):
        turned = images.rot90(shift, (2, 3))
        found = [outputs(view(turned, number, exact=exact)) for number in range(VIEWS)]
        embeddings.append(torch.stack([one for one, _ in found]).mean(0))
        scores.append(torch.stack([logits[:, shift] for _, logits in found]).mean(0))
    return torch.stack(embeddings, 1), torch.stack(scores, 1)


def normality(
    embeddings: Float[Tensor, "b shifts d"],
    scores: Float[Tensor, "b shifts"],
    bank: Float[Tensor, "n shifts d"],
    mean_scores: Float[Tensor, " shifts"],
) -> Float[Tensor, " b"]:
    """Return the normality (b,), float64, from what `ensemble_outputs` gave of the images and of the normals."""
    terms = []
    for shift in range(embeddings.shape[1]):
        z, normals = embeddings[:, shift].double(), bank[:, shift].double()
        directions = F.normalize(normals, dim=1)
        # the largest product with a unit vector is that of the nearest direction
        _, which = nearest(F.normalize(z.detach(), dim=1), directions, 1)
        similarity = (z * directions[which[:, 0]]).sum(1) / normals.norm(dim=1).mean()
        terms.append(similarity + scores[:, shift].double() / mean_scores[shift].double())
    return torch.stack(terms).mean(0)
