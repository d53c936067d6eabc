"""The gradient attacks of other libraries, each as `run(model, images, labels, norm, eps, gradients)`.

`model` gives two logits (`shim.TwoLogits`), `labels` (b,) are the true classes, `gradients` is the number of
gradient evaluations an image; the attacked images (b, c, h, w) come back. PGD takes steps of 2.5 eps / gradients from a
random start everywhere, the rule of the literature. An attack that returns only what is misclassified is asked for its
best points by loss instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Run = Callable[[nn.Module, Tensor, Tensor, str, float, int], Tensor]
STEP = 2.5


def torchattacks_pgd(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float, gradients: int
) -> Tensor:
    """Return the last iterate of torchattacks' PGD."""
    import torchattacks

    kind = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    attack = kind(model, eps=eps, alpha=STEP * eps / gradients, steps=gradients, random_start=True)
    return attack(images, labels)


def torchattacks_apgd(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float, gradients: int
) -> Tensor:
    """Return the best points by loss of torchattacks' APGD, which takes one gradient more than it has steps."""
    import torchattacks

    attack = torchattacks.APGD(model, norm=norm.capitalize(), eps=eps, steps=gradients - 1)
    return attack.perturb(images, labels, best_loss=True)[1]


def foolbox_pgd(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float, gradients: int
) -> Tensor:
    """Return the last iterate of foolbox' PGD."""
    import foolbox

    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    attack = kind(rel_stepsize=STEP / gradients, steps=gradients, random_start=True)
    return attack(foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilons=eps)[0]


def art_pgd(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float, gradients: int
) -> Tensor:
    """Return the last iterate of the Adversarial Robustness Toolbox' PGD."""
    from art.attacks.evasion import ProjectedGradientDescent

    attack = ProjectedGradientDescent(
        _art_classifier(model, images), norm=_art_norm(norm), eps=eps, eps_step=STEP * eps / gradients,
        max_iter=gradients, num_random_init=1, batch_size=len(images), verbose=False,
    )  # fmt: skip
    return torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))


def art_apgd(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float, gradients: int
) -> Tensor:
    """Return the best points by loss of the Toolbox' APGD.

    What it returns by itself is the random start of every image that is not misclassified in the end.
    """
    from art.attacks.evasion import AutoProjectedGradientDescent

    attack = AutoProjectedGradientDescent(
        _art_classifier(model, images), norm=_art_norm(norm), eps=eps, eps_step=2.0 * eps,
        max_iter=gradients, nb_random_init=1, batch_size=len(images), verbose=False,
    )  # fmt: skip
    attack.generate(images.numpy(), labels.numpy())
    return torch.from_numpy(attack.x_max)


def pyautoattack_apgd(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float, gradients: int
) -> Tensor:
    """Return the best points by loss of AutoAttack's own APGD, which takes one gradient more than it has steps."""
    from pyautoattack.autopgd_base import APGDAttack

    attack = APGDAttack(model, n_iter=gradients - 1, norm=norm.capitalize(), eps=eps, device=images.device)
    return attack.perturb(images, labels, best_loss=True)


PEERS: dict[str, Run] = {
    "torchattacks PGD": torchattacks_pgd,
    "foolbox PGD": foolbox_pgd,
    "ART PGD": art_pgd,
    "torchattacks APGD": torchattacks_apgd,
    "ART APGD": art_apgd,
    "pyautoattack APGD": pyautoattack_apgd,
}
PACKAGES = ("torchattacks", "foolbox", "adversarial-robustness-toolbox", "pyautoattack")


def _art_norm(norm: str) -> float:
    return np.inf if norm == "linf" else 2


def _art_classifier(model: nn.Module, images: Tensor) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(images.shape[1:]), nb_classes=2, clip_values=(0.0, 1.0), device_type="cpu"
    )  # fmt: skip
