"""A network whose output moves no faster than its input: a learnt score that is certified without noise.

>>> import torch
>>> from diffad.baselines.lipschitz_net import LipschitzNet
>>> detector = LipschitzNet(width=16, steps=5).fit(torch.rand(20, 1, 8, 8))
>>> detector.lipschitz
1.0
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_positive
from certify.console import progress
from certify.noise import gaussian_noise
from certify.types import FloatArray
from diffad.data.transforms import apply_each
from diffad.detector import Detector
from diffad.rounding import contraction, gamma, norm_fault
from diffad.training.batches import key

# Hard transforms that the negatives are drawn from: all that need no second image and keep an image's size.
NEGATIVES = (
    "jigsaw",
    "random_erasing",
    "cutpaste",
    "cutpaste_scar",
    "rotation",
    "noise",
    "cutout",
    "elastic",
)
COPIES = 4
GREY = 0.5
_POOL, _CHOICE = (
    20,
    21,
)  # purposes, the first number of a key: those of diffad.training and of COBRA are smaller


class LipschitzNet(Detector):
    """Signed distance to the normals that a 1-Lipschitz network learns; L = 1 by construction.

    f(x) = w s(W_k ... s(W_1 x + b_1) ... + b_k) with s = GroupSort, which sorts pairs of units (Anil et al., ICML
    2019), and orthonormal rows in every W. Both are 1-Lipschitz in L2, so f is. The stored matrices are shrunk until
    their spectral norm is proven to be at most 1 (`rounding.contraction`), however they were rounded.

    f is trained to be low on normals and high on hard transforms of them, by the hinge Kantorovich-Rubinstein loss of
    Serrurier et al. (CVPR 2021). Bethune et al. (OCSDF, ICML 2023) train such networks for one class, against negatives
    that they look for near the boundary; the transforms instead, and everything else here, are our own choice.

    The score is f(x) - f(grey) + sqrt(d) / 2 for d pixels: no image is farther from the grey one than sqrt(d) / 2, so
    it is never negative, and ranks as f does.

    Args:
        width: units of a hidden layer, even; no more are used than there are pixels.
        depth: hidden layers.
        margin: distance of normals and negatives from f = 0 that the hinge asks for, in [0, 1] pixel units: an L2
            attack on either that is smaller cannot make them meet.
        around: negatives for each normal, beside 4 transforms, that lie around it in random directions: more of them
            for defects that the transforms don't resemble.
        hinge: weight of the hinge against the Kantorovich-Rubinstein term.
        steps, batch_size, learning_rate: of Adam; a batch has as many negatives as normals.
    """

    name = "lipschitz_net"
    min_images = 2
    lipschitz = 1.0
    offset: Tensor

    def __init__(
        self,
        width: int = 128,
        depth: int = 2,
        margin: float = 1.0,
        hinge: float = 10.0,
        around: int = 1,
        steps: int = 400,
        batch_size: int = 128,
        learning_rate: float = 5e-3,
    ) -> None:
        super().__init__()
        counts = {"width": width, "depth": depth, "steps": steps, "batch_size": batch_size}
        for argument, value in {**counts, "around": around + 1}.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(
                    f"lipschitz_net: got {argument} = {value!r}, need a whole number of at least 1"
                )
        if width % 2:
            raise InputError(
                f"lipschitz_net: got width = {width}, need an even number: units are sorted in pairs"
            )
        self.width, self.depth, self.steps, self.batch_size = width, depth, steps, batch_size
        self.around = around
        self.margin, self.hinge = check_positive(margin, "margin"), check_positive(hinge, "hinge")
        self.learning_rate = check_positive(learning_rate, "learning_rate")
        for name in [*self._names(), "offset"]:
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    def _names(self) -> Iterator[str]:
        """Names of the stored matrices and biases, in the order of use; the last matrix has one row and no bias."""
        for layer in range(self.depth):
            yield from (f"weight_{layer}", f"bias_{layer}")
        yield f"weight_{self.depth}"

    # ---- fitting

    def _fit(self, train: Tensor, seed: int) -> None:
        pixels = train[0].numel()
        width = min(self.width, pixels) // 2 * 2
        if width < 2:
            raise InputError(f"lipschitz_net: got images of {pixels} pixel, need at least 2")
        normals = train.double().flatten(1)
        negatives = self._negatives(train, seed).double().flatten(1)
        raw = self._draw(pixels, width, train.device, seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.enable_grad():
            for parameter in raw:
                parameter.requires_grad_(True)
            optimizer = torch.optim.Adam(raw, lr=self.learning_rate)
            for _ in progress(range(self.steps), "lipschitz_net", self.steps):
                layers = self._orthonormal(raw)
                low, high = (
                    _values(_take(images, self.batch_size, generator), layers)
                    for images in (normals, negatives)
                )
                optimizer.zero_grad()
                loss = self._loss(low, high)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        if not bool(torch.isfinite(loss)):
            raise InputError(
                f"lipschitz_net: the loss became {float(loss)}; lower learning_rate = {self.learning_rate}"
            )
        for name, tensor in zip(self._names(), self._orthonormal(raw), strict=True):
            stored = contraction(tensor.detach()) if name.startswith("weight") else tensor.detach()
            setattr(self, name, stored)
        grey = _values(torch.full((1, pixels), GREY).to(normals), self._layers())
        # a little more than sqrt(d) / 2, so that rounding leaves nothing below 0
        self.offset = math.sqrt(pixels) / 2 * (1 + 1e-9) - grey

    def _loss(self, low: Tensor, high: Tensor) -> Tensor:
        """hKR: (E f(normal) - E f(negative)) + hinge (E max(0, m + f(normal)) + E max(0, m - f(negative)))."""
        hinge = (self.margin + low).clamp(min=0).mean() + (self.margin - high).clamp(min=0).mean()
        return low.mean() - high.mean() + self.hinge * hinge

    def _negatives(self, train: Tensor, seed: int) -> Tensor:
        """Return COPIES hard transforms of each normal, chosen and drawn by its key, and `around` images around it.

        Every second transform is drawn in the inverted image, 1 - x, so that what is cut out may be white as well as
        black. The images around a normal lie 2 margin from it in a random direction, brought into [0, 1].
        """
        normals = train.clamp(0, 1).cpu()  # noise may have carried them out
        made = []
        for copy in range(COPIES):
            keys = [(copy, image) for image in range(len(normals))]
            names = [NEGATIVES[key(seed, _CHOICE, *path) % len(NEGATIVES)] for path in keys]
            seeds = [key(seed, _POOL, *path) for path in keys]
            inverted = copy % 2 == 1
            changed = apply_each(names, 1 - normals if inverted else normals, seeds=seeds)
            made.append(1 - changed if inverted else changed)
        for copy in range(self.around):
            noise = np.stack(
                [gaussian_noise(seed, image, "fit", copy, train.shape[1:]) for image in range(len(train))]
            )
            length = np.sqrt((noise**2).sum((1, 2, 3), keepdims=True))
            step = torch.from_numpy(2 * self.margin * noise / length).to(normals)
            made.append((normals + step).clamp(0, 1))
        return torch.cat(made).to(train.device)

    def _draw(self, pixels: int, width: int, device: torch.device, seed: int) -> list[Tensor]:
        """Return Gaussian matrices and zero biases to start from, from the seed alone, float64."""
        generator = torch.Generator().manual_seed(seed)
        sizes = [pixels, *[width] * self.depth, 1]
        raw: list[Tensor] = []
        for inside, outside in pairwise(sizes):
            raw.append(torch.randn(outside, inside, generator=generator, dtype=torch.float64))
            raw.append(torch.zeros(outside, dtype=torch.float64))
        return [tensor.to(device) for tensor in raw[:-1]]  # the last bias would shift all scores alike

    @staticmethod
    def _orthonormal(raw: list[Tensor]) -> list[Tensor]:
        """Return the parameters with the rows of every matrix made orthonormal, by QR of the transpose."""
        return [torch.linalg.qr(one.T).Q.T if one.ndim == 2 else one for one in raw]

    # ---- scoring

    def _unproven(self) -> str:
        weights = {name: getattr(self, name) for name in self._names() if name.startswith("weight")}
        return norm_fault(weights, 1.0)

    def _layers(self) -> list[Tensor]:
        return [getattr(self, name) for name in self._names()]

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return (_values(images.double().flatten(1), self._layers()) + self.offset).to(images.dtype)

    def score_interval(self, images: Float[Tensor, "b c h w"]) -> tuple[FloatArray, FloatArray]:
        """Return float64 bounds (b,) of the exact score for the stored matrices, biases and offset.

        With Higham's gamma a computed W a + b of n inputs is off by at most gamma(n + 1) (|W|_F |a| + |b|) in norm;
        what follows is 1-Lipschitz and passes the error on, sorting adds none. Twice the sum pays for the rounding of
        these norms and of the addition of the offset, whose own terms are added.
        """
        self._check_input(images)
        with torch.no_grad():
            errors: list[Tensor] = []
            values = _values(images.double().flatten(1), self._layers(), errors)
            error = 2.0 * torch.stack(errors).sum(0) + 2.0 * gamma(2) * (values.abs() + self.offset.abs())
            scores = values + self.offset
        lower = (scores - error).cpu().numpy()
        upper = (scores + error).cpu().numpy()
        return np.maximum(0.0, np.nextafter(lower, -np.inf)), np.nextafter(upper, np.inf)


def _values(
    flat: Float[Tensor, "b pixels"], layers: list[Tensor], errors: list[Tensor] | None = None
) -> Float[Tensor, " b"]:
    """Return f (b,) of float64 rows; the bound of each layer's rounding (b,) is added to `errors` if given."""
    inner = flat
    for place in range(0, len(layers), 2):
        weight = layers[place]
        bias = layers[place + 1] if place + 1 < len(layers) else None
        if errors is not None:
            size = torch.linalg.matrix_norm(weight) * torch.linalg.vector_norm(inner, dim=1)
            size = size if bias is None else size + torch.linalg.vector_norm(bias)
            errors.append(gamma(weight.shape[1] + 1) * size)
        inner = inner @ weight.T
        if bias is not None:
            inner = _group_sort(inner + bias)
    return inner[:, 0]


def _group_sort(units: Float[Tensor, "b units"]) -> Float[Tensor, "b units"]:
    """Sort each pair of neighbouring units: a permutation, which changes no norm and, piece by piece, no distance."""
    pairs = units.reshape(units.shape[0], -1, 2)  # not len(), which torch.export takes for a constant
    return torch.stack([pairs.amin(2), pairs.amax(2)], 2).flatten(1)


def _take(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return `size` different rows, or all of fewer."""
    if len(images) <= size:
        return images
    return images[torch.randperm(len(images), generator=generator)[:size].to(images.device)]
