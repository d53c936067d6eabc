"""Smoothing of classifiers with the engine that certifies scores: Cohen et al. (2019) and Carlini et al. (2022).

Class c of an image is the decision of a score, the margin max_{k != c} logit_k - logit_c, at threshold 0: the median
margin is at most 0 exactly where c has at least half of the votes. So the certified radius of the decision "normal" at
threshold 0 is the published one, sigma Phi^-1(lower confidence bound of the votes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from certify import SmoothedDetector, certified_radius, sample_scores
from certify.console import progress
from certify.types import FloatArray
from diffad.attacks import attack_smoothed
from diffad.backbones.labelled import Labelled

Logits: TypeAlias = Callable[[Tensor], Tensor]
WIDTH, LEARNING_RATE = 32, 2e-3


@dataclass(frozen=True)
class Certified:
    """Class (n,) that the selection draws chose, and its certified L2 radius (n,), 0 where there is none."""

    predicted: np.ndarray[Any, np.dtype[np.int64]]
    radius: FloatArray

    def accuracy(self, labels: Tensor, radii: Sequence[float]) -> list[float]:
        """Return the share of images whose class is right and certified at each radius; 0 asks for any certificate."""
        right = self.predicted == labels.numpy()
        return [float((right & (self.radius >= radius) & (self.radius > 0)).mean()) for radius in radii]


def train_classifier(
    data: Labelled, classes: int, *, sigma: float, steps: int, seed: int, batch: int = 64
) -> nn.Module:
    """Return a small convolutional network, trained on images with noise of `sigma` (Gaussian augmentation)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the initial weights
        network = build(data.images.shape[1], classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in progress(range(steps), f"classifier, sigma {sigma:g}"):
        rows = torch.randint(len(data), (batch,), generator=generator)
        images = data.images[rows]
        noisy = images + sigma * torch.randn(images.shape, generator=generator)
        loss = nn.functional.cross_entropy(network(noisy), data.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def build(channels: int, classes: int) -> nn.Module:
    """Return an untrained network for small images."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((channels, WIDTH, 1), (WIDTH, 2 * WIDTH, 2), (2 * WIDTH, 2 * WIDTH, 2)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * WIDTH, classes))


def certify_classifier(
    logits: Logits,
    images: Float[Tensor, "n c h w"],
    *,
    sigma: float,
    n0: int,
    n: int,
    alpha: float,
    seed: int,
    batch_size: int = 250,
) -> Certified:
    """Certify as Cohen et al. do (their CERTIFY): n0 draws choose the class of an image, n others its radius.

    Args:
        logits: of noisy images, (b, classes).
        images: in [0, 1].
        sigma: of the noise in those units.
        alpha: error probability of an image.
        seed: key of all noise.
    """

    def drawn(purpose: str, count: int) -> FloatArray:
        return sample_scores(
            lambda clean, noisy: logits(noisy),
            images,
            range(len(images)),
            sigma=sigma,
            n=count,
            seed=seed,
            purpose=purpose,
            batch_size=batch_size,
            label=f"{purpose}, sigma {sigma:g}",
        )

    first = drawn("select", n0).argmax(axis=2)
    classes = np.eye(int(first.max()) + 1, dtype=np.int64)
    predicted = classes[first].sum(axis=1).argmax(axis=1)
    return Certified(predicted, vote_radius(drawn("certify", n), predicted, sigma, alpha))


def vote_radius(logits: FloatArray, predicted: Any, sigma: float, alpha: float) -> FloatArray:
    """Return the certified radius (images,) of the given classes from logits (images, n, classes) under noise."""
    places = np.asarray(predicted)[:, None, None]
    own = np.take_along_axis(logits, places, axis=2)[:, :, 0]
    others = logits.copy()
    np.put_along_axis(others, places, -np.inf, axis=2)
    margin = others.max(axis=2) - own
    margin[margin == 0] = np.finfo(np.float64).tiny  # a tie is no vote for the class
    return certified_radius(margin, 0.0, sigma, alpha, "normal")


def attacked_accuracy(
    logits: Logits,
    images: Float[Tensor, "n c h w"],
    labels: Tensor,
    certified: Certified,
    *,
    sigma: float,
    radii: Sequence[float],
    steps: int,
    eot: int,
    n: int,
    seed: int,
    batch_size: int = 250,
) -> dict[float, tuple[float, int]]:
    """Return by radius the accuracy under an L2 attack of the smoothed classifier, and how many certified images fell.

    The attack ascends the soft median of the margin under fresh noise; an image is lost where the median over n draws
    of its own is above 0. A certified image (radius >= eps, the right class) must not be lost. Each radius is attacked
    from scratch.
    """
    lost = {eps: np.zeros(len(images), dtype=bool) for eps in radii}
    for label in labels.unique().tolist():
        rows = torch.nonzero(labels == label).flatten()

        def margin(batch: Tensor, label: int = label) -> Tensor:
            found = logits(batch)
            mask = torch.nn.functional.one_hot(torch.tensor(label), found.shape[1]).bool().to(found.device)
            return found.masked_fill(mask, -torch.inf).amax(1) - found[:, label]

        smoothed = SmoothedDetector(margin, sigma, "input", n=n, seed=seed, batch_size=batch_size)
        clean_scores: FloatArray | None = None  # the same at every radius
        for eps in radii:
            result = attack_smoothed(
                smoothed,
                images[rows],
                torch.zeros(len(rows), dtype=torch.int64),
                rows.tolist(),
                norm="l2",
                eps=eps,
                steps=steps,
                eot=eot,
                seed=seed,
                clean_scores=clean_scores,
            )
            clean_scores = result.clean_scores
            lost[eps][rows.numpy()] = result.scores > 0
    right = certified.predicted == labels.numpy()
    fell = {eps: int((gone & right & (certified.radius >= eps)).sum()) for eps, gone in lost.items()}
    return {eps: (float(1 - gone.mean()), fell[eps]) for eps, gone in lost.items()}
