"""The best denoiser of the training images themselves: their posterior mean, in closed form."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_positive
from certify.types import ScoreFunction
from diffad.attacks.gradients import processes_of
from diffad.attacks.reconstruction import ReconstructionScore
from diffad.detector import Detector
from diffad.neighbours import pair_distance

# Entries of one block of the table of weights: 32 MiB of float64.
_BLOCK = 1 << 22


class ClosedForm(Detector):
    """Reconstruction error of the posterior-mean denoiser over the normal images; no network.

    If images were drawn evenly from the n training images x_i, the mean of x given y = x + sigma e would be
    sum_i w_i x_i with w = softmax(-|y - x_i|^2 / (2 sigma^2)): the minimiser of the loss on which diffusion
    models are trained, so a network that does worse on anomalies or certifies less is not worth its cost. As
    sigma grows, the score tends to `pixel_mean`; as it falls, to `pixel_nn`.

    The score of an image is the median over the stored draws e of |x - R(x + sigma e)| (of an even number of
    draws the lower median). It is not the certified object: that is a percentile over fresh noise
    (`certify.SmoothedDetector`, way `reference`).

    Args:
        sigma: noise of the stored draws, in [0, 1] pixel units.
        draws: number of stored draws.
        seed: of the stored draws.
    """

    name = "closed_form"
    is_random = True
    # | |x - r| - |x' - r| | <= |x - x'|: the triangle inequality, for any reconstruction r
    pair_lipschitz = 1.0
    bank: Tensor
    noise: Tensor

    def __init__(self, sigma: float = 1.0, draws: int = 9, seed: int = 0) -> None:
        super().__init__()
        if draws < 1:
            raise InputError(f"closed_form: got draws = {draws}, need at least 1")
        self.sigma = check_positive(sigma, "sigma")
        self.draws = draws
        self.seed = seed
        self.register_buffer("bank", torch.empty(0))
        self.register_buffer("noise", torch.empty(0))

    def _fit(self, train: Tensor, seed: int) -> None:
        self.bank = train.float().flatten(1).clone()
        generator = torch.Generator().manual_seed(self.seed)
        self.noise = torch.randn(self.draws, *train.shape[1:], generator=generator).to(train.device)

    def reconstruct(self, noisy: Float[Tensor, "b c h w"], sigma: float) -> Float[Tensor, "b c h w"]:
        """Return the posterior mean given noisy = x + sigma e, in the dtype of `noisy`; differentiable.

        Computed in float64: at small sigma the exponents are large, and float32 would let the batch decide
        them.
        """
        shape = self._require_fitted()
        check_positive(sigma, "sigma")
        if tuple(noisy.shape[1:]) != shape:
            raise InputError(f"closed_form: got images {tuple(noisy.shape[1:])}, fitted on {shape}")
        bank = self.bank.double()
        # the term |y|^2 of every exponent is dropped: softmax does not see it
        offsets = bank.square().sum(1) / (2 * sigma**2)
        parts = []
        for points in torch.split(noisy.flatten(1), max(1, _BLOCK // len(bank))):
            exponents = torch.addmm(-offsets, points.double() / sigma**2, bank.T)
            parts.append(exponents.softmax(dim=1) @ bank)
        return torch.cat(parts).to(noisy.dtype).view_as(noisy)

    def score_pair(
        self, reference: Float[Tensor, "b c h w"], reconstruction: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, " b"]:
        """Return the L2 norm of the difference (b,); 1-Lipschitz in the reference."""
        return pair_distance(reference.flatten(1), reconstruction.flatten(1)).to(reference.dtype)

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return `mean_draws`, the mean over the draws instead of the median, and other gradients of it."""
        processes = processes_of(self, residual=True)
        mean = ReconstructionScore(
            self.score_pair, self.reconstruct, self.sigma, self.noise, processes=processes
        )
        return {"mean_draws": mean, **mean.surrogates()}

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        draws = self.noise if noise is None else noise
        errors = [
            self.score_pair(images, self.reconstruct(images + self.sigma * draw, self.sigma))
            for draw in draws.to(images)
        ]
        # the lower median; `median` itself has no counterpart in ONNX
        return torch.stack(errors).sort(dim=0).values[(len(errors) - 1) // 2]
