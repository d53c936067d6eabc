"""The loss of a batch of labelled images, for each way of training.

Clean and attacked images that a loss compares go through the network as one batch, with joint batch statistics: one
forward pass for each backward pass, as data parallelism wants it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffad.attacks.threat import ThreatModel
from diffad.backbones.backbone import Backbone
from diffad.backbones.classifier import Classifier
from diffad.backbones.config import BackboneConfig
from diffad.backbones.craft import Losses, ascend, ball_start, constant_steps, evaluating, last
from diffad.backbones.guard import fast_attack
from diffad.training import BatchLoss
from diffad.training.augment import augment

TRADES_START = (
    1e-3  # standard deviation of the start: at the clean image itself the divergence has no gradient
)


def training_loss(classifier: Classifier, config: BackboneConfig, helper: Backbone | None) -> BatchLoss:
    """Return the loss of a batch (images in [0, 1], class numbers).

    `classifier` is the bare network, which attacks are crafted on in evaluation mode; `helper` labels the helper
    images of method hat.
    """
    threat = config.threat
    sizes = constant_steps(threat.eps, config.attack_steps)

    def standard(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return F.cross_entropy(model(images), labels)

    def pgd(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        with evaluating(classifier):
            start = ball_start(images, threat, generator)
            attacked = last(ascend(cross_entropy(classifier, labels), start, images, threat, sizes))
        return F.cross_entropy(model(attacked), labels)

    def fgsm_rs(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        with evaluating(classifier):
            attacked = fast_attack(classifier, images, labels, config, generator)
        return F.cross_entropy(model(attacked), labels)

    def trades(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        with evaluating(classifier):
            attacked = divergent(classifier, images, threat, sizes, generator)
        clean_scores, attacked_scores = model(torch.cat([images, attacked])).chunk(2)
        robust = divergence(attacked_scores, clean_scores).mean()
        return F.cross_entropy(clean_scores, labels) + config.beta * robust

    def hat(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        assert helper is not None
        with evaluating(classifier):
            attacked = divergent(classifier, images, threat, sizes, generator)
        further = images + config.helper_scale * (attacked - images)
        with torch.no_grad():
            further_labels = helper.logits(attacked).argmax(1)
        clean_scores, attacked_scores, further_scores = model(torch.cat([images, attacked, further])).chunk(3)
        robust = divergence(attacked_scores, clean_scores).mean()
        helping = F.cross_entropy(further_scores, further_labels)
        clean = F.cross_entropy(clean_scores, labels)
        return clean + config.beta * robust + config.helper_weight * helping

    methods = {"standard": standard, "pgd": pgd, "fgsm_rs": fgsm_rs, "trades": trades, "hat": hat}
    method = methods[config.method]

    def batch_loss(model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        images, labels = batch
        return method(model, augment(images, config, generator), labels, generator)

    return batch_loss


def cross_entropy(network: nn.Module, labels: Tensor) -> Losses:
    """Return the cross entropy of each image (b,) as a function of the images."""
    return lambda images: F.cross_entropy(network(images), labels, reduction="none")


def divergence(scores: Tensor, reference: Tensor) -> Tensor:
    """Return KL(softmax(reference) || softmax(scores)) of each image (b,), in nats."""
    return F.kl_div(
        F.log_softmax(scores, 1), F.log_softmax(reference, 1), reduction="none", log_target=True
    ).sum(1)


def divergent(
    network: nn.Module, images: Tensor, threat: ThreatModel, sizes: list[float], generator: torch.Generator
) -> Tensor:
    """Return images that raise the divergence from the clean prediction (Zhang et al. 2019, sec. 4)."""
    with torch.no_grad():
        reference = network(images)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    start = threat.project(images + TRADES_START * noise, images)
    return last(ascend(lambda x: divergence(network(x), reference), start, images, threat, sizes))
