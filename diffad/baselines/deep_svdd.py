"""Deep SVDD: how far the features of an image lie from where those of normal images were pulled together.

Ruff et al., "Deep One-Class Classification", ICML 2018.

>>> import torch
>>> from diffad.baselines.deep_svdd import DeepSVDD
>>> detector = DeepSVDD(steps=5).fit(torch.rand(20, 1, 8, 8))
>>> detector.score(torch.rand(3, 1, 8, 8)).shape
torch.Size([3])
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from certify.checks import InputError, check_positive
from certify.console import progress
from diffad.detector import Detector

KERNEL = 5
LEAK = 0.1  # slope of the leaky ReLU below 0, as in the authors' code
LEAST_CENTRE = 0.1  # coordinates of the centre nearer to 0 than this are moved there, as in the authors' code
LEAST_SIDE = 4  # two times halved, one pixel is left
LAYERS = 3


class DeepSVDD(Detector):
    """Squared L2 distance of a small network's features to a fixed centre, |phi(x; W) - c|^2.

    Two 5 x 5 convolutions, each with a leaky ReLU and max-pooling, and a linear layer. The centre is the mean of the
    features of the normals under the initial weights, with coordinates near 0 pushed away. Training minimises

        one-class:      mean_i d_i + weight_decay / 2 |W|^2,    d_i = |phi(x_i; W) - c|^2            (equation 4)
        soft boundary:  R^2 + mean_i max(0, d_i - R^2) / nu + weight_decay / 2 |W|^2                 (equation 3)

    with R^2 the (1 - nu) quantile of the d_i of a batch. A network that could give every image the features c would
    minimise both. So it has no bias terms (proposition 2) and no bounded activations (proposition 3), c is not what
    weights of 0 give (proposition 1), and nothing is normalised over the batch, whose means would be biases:
    phi(a x) = a phi(x) for a >= 0. The paper's score of the soft boundary is d - R^2; here it is d, which ranks alike.

    Nothing defends it against attacks, and it has no certificate without noise.

    Args:
        width: channels of the first convolution, half of those of the second.
        code: number of features.
        nu: share of the normals that may lie outside of the soft boundary, in (0, 1); 0 is the one-class objective.
        steps: of Adam, the last third at a tenth of the rate.
        batch_size: normals a step; fewer training images are taken all at once.
        learning_rate: of Adam.
        weight_decay: lambda of both objectives.
    """

    name = "deep_svdd"
    min_images = 2
    centre: Tensor

    def __init__(
        self,
        width: int = 16,
        code: int = 32,
        nu: float = 0.0,
        steps: int = 300,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-6,
    ) -> None:
        super().__init__()
        for argument, value in {
            "width": width,
            "code": code,
            "steps": steps,
            "batch_size": batch_size,
        }.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"deep_svdd: got {argument} = {value!r}, need a whole number of at least 1")
        if not 0.0 <= nu < 1.0:
            raise InputError(f"deep_svdd: got nu = {nu}, need a share in (0, 1), or 0 for one-class")
        if not 0.0 <= weight_decay < float("inf"):
            raise InputError(
                f"deep_svdd: got weight_decay = {weight_decay}, need a finite number of at least 0"
            )
        self.width, self.code, self.nu = width, code, float(nu)
        self.steps, self.batch_size, self.weight_decay = steps, batch_size, float(weight_decay)
        self.learning_rate = check_positive(learning_rate, "learning_rate")
        for layer in range(LAYERS):
            self.register_buffer(f"weight_{layer}", torch.empty(0))
        self.register_buffer("centre", torch.empty(0))

    @property
    def score_name(self) -> str:
        """Empty, or the soft boundary it was trained with."""
        return f"soft boundary {self.nu:.3g}" if self.nu else ""

    def _fit(self, train: Tensor, seed: int) -> None:
        normals = train.float()
        generator = torch.Generator().manual_seed(seed)
        self._draw_weights(generator, train.device)
        self.centre = away_from_zero(
            torch.cat([self.embed(part) for part in torch.split(normals, 256)]).mean(0)
        )
        names = [f"weight_{layer}" for layer in range(LAYERS)]
        weights = [getattr(self, name).requires_grad_(True) for name in names]
        with torch.enable_grad():
            optimizer = torch.optim.Adam(weights, lr=self.learning_rate, weight_decay=self.weight_decay)
            for step in progress(range(self.steps), "deep_svdd", self.steps):
                if step == self.steps - self.steps // 3:
                    optimizer.param_groups[0]["lr"] = 0.1 * self.learning_rate
                order = torch.randperm(len(normals), generator=generator)[: self.batch_size]
                loss = objective(self._score(normals[order.to(train.device)], None), self.nu)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        for name in names:
            setattr(self, name, getattr(self, name).detach())
        last = self._score(normals[: self.batch_size], None)  # by the weights after the last step
        if not bool(torch.isfinite(last).all()):
            raise InputError(
                f"deep_svdd: the scores became NaN or infinity; lower learning_rate = {self.learning_rate}"
            )

    def _draw_weights(self, generator: torch.Generator, device: torch.device) -> None:
        """Set normal weights that keep the size of what goes through (He et al., 2015), drawn on the CPU."""
        channels, height, width = self._require_fitted()
        if min(height, width) < LEAST_SIDE:
            raise InputError(
                f"deep_svdd: got images {height} x {width}, need at least {LEAST_SIDE} x {LEAST_SIDE}"
            )
        inner = 2 * self.width * (height // 4) * (width // 4)
        shapes = (
            (self.width, channels, KERNEL, KERNEL),
            (2 * self.width, self.width, KERNEL, KERNEL),
            (self.code, inner),
        )
        for layer, shape in enumerate(shapes):
            inputs = torch.Size(shape[1:]).numel()
            drawn = torch.randn(shape, generator=generator) * (2.0 / inputs) ** 0.5
            setattr(self, f"weight_{layer}", drawn.to(device))

    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b code"]:
        """Return the features phi(x; W) in float32; differentiable."""
        inner = images.float()
        for layer in range(LAYERS - 1):
            inner = F.conv2d(inner, getattr(self, f"weight_{layer}"), padding=KERNEL // 2)
            inner = F.max_pool2d(F.leaky_relu(inner, LEAK), 2)
        return F.linear(inner.flatten(1), getattr(self, f"weight_{LAYERS - 1}"))

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return (self.embed(images) - self.centre).square().sum(1).to(images.dtype)


def objective(distances: Float[Tensor, " b"], nu: float) -> Float[Tensor, ""]:
    """Return what a step minimises, without the weight decay, from the squared distances to the centre.

    R^2 is no variable of the optimiser: for given weights its best value is this quantile (section 3.2).
    """
    if nu == 0:
        return distances.mean()
    boundary = distances.detach().quantile(1.0 - nu)
    return boundary + (distances - boundary).clamp(min=0).mean() / nu


def away_from_zero(centre: Float[Tensor, " code"]) -> Float[Tensor, " code"]:
    """Return the centre with coordinates within 0.1 of 0 moved to -0.1 or 0.1: weights of 0 would reach a 0."""
    near = centre.abs() < LEAST_CENTRE
    return torch.where(near, torch.where(centre < 0, -LEAST_CENTRE, LEAST_CENTRE), centre)
