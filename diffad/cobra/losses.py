"""The losses of COBRA's training and those that its ablation compares (Table 6 of the paper), all finite.

With similarities s, temperature t, a row a, its positives P(a) (the other views of its image), its opposite o (the same
image on the other side of the transform) and the sum Z(a) of exp(s / t) over all other rows:

| name             | of a row                                                   | source                       |
|------------------|------------------------------------------------------------|------------------------------|
| `nt_xent`        | mean over p of -log(exp(s_p / t) / Z)                      | SimCLR, Chen et al. 2020     |
| `supcon`         | the same with all rows of the class for positives          | Khosla et al. 2020, L_out    |
| `opposite`       | mean over views of o of softplus(s_o / t)                  | bounded stand-in for eq. (3) |
| `paper_clamped`  | mean over p of -log(max(exp(s_p/t) - exp(s_o/t), tau) / Z) | COBRA, eq. (2)               |
| `additive`       | `nt_xent` + lambda `opposite`                              | ours                         |
| `classification` | cross entropy of the class scores                          | COBRA, L_CLS                 |

Equation (2) has no floor: it is infinite where s_o = s_p and undefined beyond, and eq. (3) is the logarithm of a
negative number, so their sum is not (2) either. The floor tau keeps (2) finite but takes the gradient of the numerator
exactly from the pairs that most need separating; `additive` repels every opposite pair, by a slope between 0.1 and 0.9
over t. Which view of o stands in (2) is not said; here it is that of the positive. Each loss is a mean over rows, where
the paper sums over them. In `opposite` alone nothing else holds rows apart or together; Table 6 has such a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from certify.checks import InputError, check_choice, check_positive
from diffad.cobra.views import Views

LossName: TypeAlias = Literal["nt_xent", "supcon", "opposite", "paper_clamped", "additive", "classification"]


@dataclass(frozen=True)
class LossOptions:
    """Constants of the losses.

    Attributes:
        temperature: t, at least 0.02; the released code has 0.5, the paper names none.
        floor: tau, the least numerator of `paper_clamped`, above 0; a numerator is below exp(1 / t) = 7.4 at t = 0.5.
        opposite_weight: lambda of `additive`, at least 0.
    """

    temperature: float = 0.5
    floor: float = 1e-2
    opposite_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0.02):
            raise InputError(f"temperature: got {self.temperature}, need a finite value of at least 0.02")
        check_positive(self.floor, "floor")
        if not (math.isfinite(self.opposite_weight) and self.opposite_weight >= 0):
            raise InputError(
                f"opposite_weight: got {self.opposite_weight}, need a finite value of at least 0"
            )


def nt_xent(views: Views, options: LossOptions) -> Float[Tensor, ""]:
    """Return the normalised temperature-scaled cross entropy, averaged over rows and their positives."""
    t = options.temperature
    return (views.log_denominators(t) - views.positives() / t).mean()


def supcon(views: Views, options: LossOptions) -> Float[Tensor, ""]:
    """Return the supervised contrastive loss, the mean over positives outside the logarithm."""
    t = options.temperature
    labels = views.labels.repeat(views.views)
    same = labels[:, None] == labels[None, :]
    same.fill_diagonal_(False)
    attraction = torch.where(same, views.similarities, 0.0).sum(1) / same.sum(1)
    return (views.log_denominators(t).flatten() - attraction / t).mean()


def opposite(views: Views, options: LossOptions) -> Float[Tensor, ""]:
    """Return the mean of softplus(s_o / t), between log(1 + exp(-1 / t)) and log(1 + exp(1 / t))."""
    return F.softplus(views.opposites() / options.temperature).mean()


def additive(views: Views, options: LossOptions) -> Float[Tensor, ""]:
    """Return `nt_xent` + lambda `opposite`: bounded from below by 0."""
    return nt_xent(views, options) + options.opposite_weight * opposite(views, options)


def paper_clamped(views: Views, options: LossOptions) -> Float[Tensor, ""]:
    """Return equation (2) with numerators of at least tau; log Z - log tau where they are below."""
    logs, _ = log_numerators(views, options)
    return (views.log_denominators(options.temperature) - logs).mean()


def classification(views: Views, options: LossOptions) -> Float[Tensor, ""]:
    """Return the cross entropy of the class scores of all scored rows."""
    if views.logits is None:
        raise InputError("classification: got no class scores")
    scores = views.logits if views.logits.dtype == torch.float64 else views.logits.float()
    return F.cross_entropy(scores, views.labels.repeat(len(scores) // views.images))


LOSSES: dict[str, Callable[[Views, LossOptions], Tensor]] = {
    "nt_xent": nt_xent,
    "supcon": supcon,
    "opposite": opposite,
    "paper_clamped": paper_clamped,
    "additive": additive,
    "classification": classification,
}
# What moves the projection head; the classification loss moves the class scores alone.
CONTRASTIVE = frozenset(LOSSES) - {"classification"}
# What needs opposite pairs, that is two classes.
PAIRED = frozenset({"opposite", "paper_clamped", "additive"})


def log_numerators(
    views: Views, options: LossOptions
) -> tuple[Float[Tensor, "views others n"], Float[Tensor, "views others n"]]:
    """Return log max(exp(s_p / t) - exp(s_o / t), tau), and a mask (1 or 0) of the pairs at the floor.

    The difference is formed as exp(s_p / t) (1 - exp(-(s_p - s_o) / t)), so neither small temperatures overflow nor
    close similarities cancel; the branch not taken gets finite values, so that its gradient of zero stays zero.
    """
    t, log_floor = options.temperature, math.log(options.floor)
    positives, opposites = views.positives(), views.opposites_of_positives()
    gap = (positives - opposites) / t
    apart = gap > 1e-12
    logs = positives / t + torch.log(-torch.expm1(-torch.where(apart, gap, 1.0)))
    free = apart & (logs > log_floor)
    return torch.where(free, logs, log_floor), (~free).to(logs.dtype)


def pair_figures(views: Views, options: LossOptions) -> dict[str, Tensor]:
    """Return what a log says of the opposite pairs, without graph.

    `clamped_share` of the numerators of eq. (2) lie at or below tau; `least_numerator` is the smallest of them, without
    floor and negative where an opposite is nearer than a positive.
    """
    views = Views(views.similarities.detach(), views.labels)
    _, clamped = log_numerators(views, options)
    t = options.temperature
    numerators = (views.positives() / t).exp() - (views.opposites_of_positives() / t).exp()
    return {"clamped_share": clamped.mean(), "least_numerator": numerators.min()}


def check_losses(weights: Mapping[str, float]) -> None:
    """Refuse unknown losses, none at all, or weights that are not positive."""
    if not weights:
        raise InputError(f"losses: got none, need at least one of {', '.join(LOSSES)}")
    for name, weight in weights.items():
        check_choice(name, tuple(LOSSES), "losses")
        check_positive(weight, f"weight of {name}")


def total_loss(views: Views, weights: Mapping[str, float], options: LossOptions) -> Float[Tensor, ""]:
    """Return the weighted sum of the losses named."""
    check_losses(weights)
    return torch.stack([weight * LOSSES[name](views, options) for name, weight in weights.items()]).sum()
