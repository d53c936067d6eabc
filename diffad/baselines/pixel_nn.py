"""Distance to the nearest normal images, in pixels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError
from certify.types import FloatArray, ScoreFunction
from diffad.attacks.summaries import soft_minimum
from diffad.detector import Detector
from diffad.neighbours import largest_norm, nearest, pair_distance, search_error
from diffad.rounding import enclose

_BATCH = 512
SOFT_NEIGHBOURS = 32  # in the surrogate of the nearest neighbour


class PixelNN(Detector):
    """Sum of the L2 distances of an image to its k nearest normal images.

    The score is the minimum over all k-subsets of the bank of a sum of k distances. Each distance is
    1-Lipschitz, so each sum is k-Lipschitz, and so is their minimum: L = k, which is attained. k = 1
    certifies most.

    Args:
        k: number of neighbours, at most the number of training images.
    """

    name = "pixel_nn"
    lipschitz: float = 1.0
    bank: Tensor

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        if k < 1:
            raise InputError(f"pixel_nn: got k = {k}, need at least 1")
        self.k = k
        self.min_images = k
        self.lipschitz = float(k)
        self.register_buffer("bank", torch.empty(0))

    def _fit(self, train: Tensor, seed: int) -> None:
        self.bank = train.float().flatten(1).clone()

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        queries = images.flatten(1)
        # the gradient holds the neighbours fixed, which they are almost everywhere
        _, indices = nearest(queries.detach(), self.bank, self.k)
        distances = [pair_distance(queries, self.bank[column]) for column in indices.T]
        return torch.stack(distances, dim=1).sum(1).to(images.dtype)

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return `soft_nn`, pulled by several neighbours at once, and `mean_image`, by the mean of the bank."""
        return {"soft_nn": self._soft_nn, "mean_image": self._mean_image}

    def _soft_nn(self, images: Tensor) -> Tensor:
        queries = images.flatten(1)
        _, indices = nearest(queries.detach(), self.bank, min(SOFT_NEIGHBOURS, len(self.bank)))
        distances = [pair_distance(queries, self.bank[column]) for column in indices.T]
        return soft_minimum(torch.stack(distances, dim=1)).to(images.dtype)

    def _mean_image(self, images: Tensor) -> Tensor:
        mean = self.bank.mean(0).expand(len(images), -1)
        return pair_distance(images.flatten(1), mean).to(images.dtype)

    def anomaly_map(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Return at each pixel the difference to a neighbour (L2 over channels), mean over the k of them."""
        self._check_input(images)
        with torch.no_grad():
            queries = images.flatten(1)
            _, indices = nearest(queries, self.bank, self.k)
            differences = ((queries - self.bank[column]).view_as(images) for column in indices.T)
            norms = [torch.linalg.vector_norm(difference, dim=1) for difference in differences]
            return torch.stack(norms).mean(0).to(images.dtype)

    def in_bank(self, images: Float[Tensor, "n c h w"]) -> list[int]:
        """Return which images are normals of the bank, pixel for pixel."""
        batches = (batch.flatten(1).to(self.bank.device) for batch in torch.split(images, _BATCH))
        kept = torch.cat([nearest(batch, self.bank)[0][:, 0] == 0 for batch in batches])
        found: list[int] = kept.nonzero()[:, 0].tolist()
        return found

    def score_interval(self, images: Float[Tensor, "b c h w"]) -> tuple[FloatArray, FloatArray]:
        """Return float64 bounds (b,) of the exact sum of distances.

        Any k bank images bound the sum of the k smallest distances from above; from below, each squared
        distance is lowered by the error of the search (`diffad.neighbours`).
        """
        self._check_input(images)
        queries = images.detach().flatten(1).double()
        distances, _ = nearest(queries, self.bank, self.k)
        dims = queries.shape[1]
        slack = search_error(dims, largest_norm(queries), largest_norm(self.bank))
        # k more coordinates pay for the summation of k distances
        lower, upper = enclose(distances.cpu().numpy(), dims + self.k, square_below=slack)
        return lower.sum(1), upper.sum(1)
