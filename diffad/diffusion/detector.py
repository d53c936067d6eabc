"""The diffusion reconstruction detector (AdvRAD, arXiv 2408.04839): one model scores and purifies.

    noisy = x + sigma * e,    x~ = one-shot denoise(noisy),    score = S(x, x~)

>>> detector = load_detector("runs/digits")          # doctest: +SKIP
>>> detector.score(images)                           # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from certify.checks import InputError, check_choice, check_positive
from certify.types import ScoreFunction
from diffad.attacks.gradients import Reconstruct, processes_of
from diffad.attacks.reconstruction import ReconstructionScore, mean_over_draws
from diffad.attacks.summaries import MAP_SUMMARIES
from diffad.detector import Detector
from diffad.diffusion.model import Denoiser
from diffad.diffusion.purifier import Purifier
from diffad.diffusion.scores import (
    DEFAULT_SCALES,
    PATCH_SCORES,
    SCORE_NAMES,
    ScoreName,
    l2_norm,
    multiscale_error,
    pair_lipschitz,
    patch_norms,
    patch_weights,
    safe_root,
)


class DiffusionDetector(Detector):
    """Scores an image by how badly a diffusion model of normal images reconstructs it from noise.

    Args:
        score_name: one of `diffad.diffusion.scores.SCORE_NAMES`; its docstring has the definitions.
        sigma: noise of the detector itself, in [0, 1] pixel units.
        draws: stored noise draws that `score` averages over.
        shots: m of the m-shot reconstruction; 1 is one network call.
        scales, filter_size: of the multiscale error map.
        patch_size: window of the patch scores.
        autocast: run the network in bfloat16 (the deployed arithmetic, recorded with the detector).
        seed: of the stored draws.

    `score` uses the stored draws, shared by all images and all calls: it is deterministic, and its stored noise is
    known to an attacker, so it is *not* the object that a certificate speaks about; that is the percentile of the
    noisy score with fresh noise (`certify.SmoothedDetector`).
    """

    name: ClassVar[str] = "diffusion"
    is_random: bool = True

    noise_: Tensor
    statistics_sigmas_: Tensor
    mean_error_: Tensor
    mean_root_: Tensor

    def __init__(
        self,
        *,
        score_name: ScoreName = "l2",
        sigma: float = 0.5,
        draws: int = 8,
        shots: int = 1,
        scales: Sequence[int] = DEFAULT_SCALES,
        filter_size: int = 3,
        patch_size: int = 9,
        autocast: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice(score_name, SCORE_NAMES, "score_name")
        self.score_name: ScoreName = score_name
        self.sigma = check_positive(sigma, "sigma")
        for argument, value in (("draws", draws), ("shots", shots), ("patch_size", patch_size)):
            if value < 1:
                raise InputError(f"{argument}: got {value}, need at least 1")
        self.draws, self.shots, self.seed = draws, shots, seed
        self.scales, self.filter_size, self.patch_size = tuple(scales), filter_size, patch_size
        self.autocast = autocast
        self.purifier: Purifier | None = None
        for buffer in ("noise_", "statistics_sigmas_", "mean_error_", "mean_root_"):
            dtype = torch.float64 if buffer == "statistics_sigmas_" else torch.float32
            self.register_buffer(buffer, torch.empty(0, dtype=dtype))

    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON."""
        return {
            "score_name": self.score_name,
            "sigma": self.sigma,
            "draws": self.draws,
            "shots": self.shots,
            "scales": list(self.scales),
            "filter_size": self.filter_size,
            "patch_size": self.patch_size,
            "autocast": self.autocast,
            "seed": self.seed,
        }

    # ---- fitting

    @classmethod
    def from_denoiser(
        cls, denoiser: Denoiser, image_shape: tuple[int, int, int], **options: Any
    ) -> DiffusionDetector:
        """A detector around a trained network; call `fit` next for the statistics of normals."""
        detector = cls(**options)
        detector.attach(denoiser)
        detector.image_shape = image_shape
        return detector

    def attach(self, denoiser: Denoiser) -> None:
        """Use this network, frozen."""
        self.purifier = Purifier(denoiser, shots=self.shots, seed=self.seed, autocast=self.autocast)

    def with_options(self, **options: Any) -> DiffusionDetector:
        """The same network, noise and statistics under other constructor arguments; not calibrated.

        Other scales or another filter size leave the statistics of normals behind: `paper`, `root_max` and
        `patch_relative` then need `fit_statistics`. Raises `InputError` for more draws than are stored, and for
        another seed of them.
        """
        other = type(self)(**{**self.config(), **options})
        if other.draws > len(self.noise_):
            raise InputError(f"draws: got {other.draws}, this detector stores {len(self.noise_)}")
        if other.seed != self.seed:
            raise InputError(f"seed: got {other.seed}, the stored draws are of seed {self.seed}; fit again")
        if self.purifier is not None:
            other.attach(self.purifier.denoiser)
        other.image_shape, other.fit_info = self.image_shape, dict(self.fit_info)
        other.noise_ = self.noise_[: other.draws]
        if (other.scales, other.filter_size) == (self.scales, self.filter_size):
            other.statistics_sigmas_ = self.statistics_sigmas_
            other.mean_error_, other.mean_root_ = self.mean_error_, self.mean_root_
        return other.eval()

    def _fit(self, train: Float[Tensor, "n c h w"], seed: int) -> None:
        if self.purifier is None:
            raise InputError(
                "DiffusionDetector.fit: no network; train one with `accelerate launch train_ddpm.py` "
                "or load one with DiffusionDetector.from_denoiser(Denoiser.from_pretrained(folder), image_shape)"
            )
        generator = torch.Generator().manual_seed(self.seed)
        self.noise_ = torch.randn(self.draws, *train.shape[1:], generator=generator).to(train.device)
        self.fit_statistics(train, [self.sigma])

    def fit_statistics(
        self, train: Float[Tensor, "n c h w"], sigmas: Sequence[float], limit: int = 256
    ) -> None:
        """Keep the mean error maps of at most `limit` normals at each noise level; stored draws take turns.

        One draw for all images would leave its own pattern in the means.
        `paper` and `root_max` subtract the one nearest to their sigma, `patch_relative` weighs windows by it.
        """
        errors, roots = [], []
        for sigma in sigmas:
            maps = []
            with torch.no_grad():
                for start in range(0, min(limit, len(train)), 64):
                    images = train[start : min(start + 64, limit)].to(self.noise_.device)
                    noise = self.noise_[torch.arange(start, start + len(images)) % len(self.noise_)]
                    residual = images - self._reconstruct(images + sigma * noise, sigma)
                    maps.append(multiscale_error(residual, self.scales, self.filter_size))
            error = torch.cat(maps)
            errors.append(error.mean(0))
            roots.append(safe_root(error).mean(0))
        self.statistics_sigmas_ = torch.tensor(list(sigmas), dtype=torch.float64)
        self.mean_error_, self.mean_root_ = torch.stack(errors), torch.stack(roots)

    def _nearest_statistics(self) -> int:
        if len(self.statistics_sigmas_) == 0:
            raise InputError(f"{self.score_name}: no statistics of normals; call fit or fit_statistics")
        return int((self.statistics_sigmas_.log() - torch.tensor(self.sigma).double().log()).abs().argmin())

    # ---- scoring

    def _reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        if self.purifier is None:
            raise InputError("DiffusionDetector: no network; use from_pretrained or from_denoiser")
        return self.purifier.reconstruct(noisy, sigma)

    def reconstruct(self, noisy: Float[Tensor, "b c h w"], sigma: float) -> Float[Tensor, "b c h w"]:
        """Reconstruction of noisy = x + sigma * e, a function of `noisy` alone."""
        return self._reconstruct(noisy, sigma)

    def score_pair(
        self, reference: Float[Tensor, "b c h w"], reconstruction: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, " b"]:
        """S(x, x~) of `score_name`; `pair_lipschitz` is its constant in the reference."""
        self._check_shape(reference)  # the constant of root_max holds for one image size
        return self.scores_of_residual(reference - reconstruction, self.score_name)

    def scores_of_residual(self, residual: Float[Tensor, "b c h w"], name: ScoreName) -> Float[Tensor, " b"]:
        """Any of the scores from one residual x - x~: one network call serves them all."""
        if name == "l2":
            return l2_norm(residual)
        return self._places(residual, name).flatten(1).amax(1)

    def _places(self, residual: Tensor, name: ScoreName) -> Tensor:
        """Return the map (b, rows, columns) whose maximum is the score; for `l2`, a sum, the error of each pixel."""
        if name == "l2":
            return safe_root(residual.square().sum(1))
        if name in PATCH_SCORES:
            return self._patch_norms(residual, name)
        at = self._nearest_statistics()
        error = multiscale_error(residual, self.scales, self.filter_size)
        if name == "paper":
            return (error - self.mean_error_[at]).abs()
        return (safe_root(error) - self.mean_root_[at]).abs()

    def _patch_norms(self, residual: Tensor, name: ScoreName) -> Tensor:
        """Window norms of a patch score, weighed if it is the relative one."""
        norms = patch_norms(residual, self.patch_size)
        if name == "patch_max":
            return norms
        return norms * patch_weights(self.mean_error_[self._nearest_statistics()], self.patch_size)

    @property
    def pair_lipschitz(self) -> float | None:
        """Lipschitz constant of `score_pair` in the reference, L2; None for `paper`."""
        if self.image_shape is None:
            raise InputError("DiffusionDetector: not fitted, the image size is unknown")
        return pair_lipschitz(self.score_name, self.image_shape, self.scales, self.filter_size)

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        draws = self.noise_ if noise is None else noise.to(images)
        return mean_over_draws(self.score_pair, self._reconstruct, images, self.sigma, draws)

    @torch.no_grad()
    def anomaly_map(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Root error at image size, mean over the stored draws; for patch scores that of the window around a pixel."""
        self._check_input(images)
        total = torch.zeros(len(images), *images.shape[-2:], device=images.device)
        for noise in self.noise_:
            residual = images - self._reconstruct(images + self.sigma * noise, self.sigma)
            total = total + self._map_of_residual(residual)
        return total / len(self.noise_)

    def _map_of_residual(self, residual: Tensor) -> Tensor:
        if self.score_name not in PATCH_SCORES:
            return safe_root(multiscale_error(residual, self.scales, self.filter_size))
        norms = self._patch_norms(residual, self.score_name)
        before = (self.patch_size - 1) // 2
        after = self.patch_size - 1 - before
        return F.pad(norms[:, None], (before, after, before, after), mode="replicate")[:, 0]

    # ---- what an attack may differentiate instead

    def processes(self) -> dict[str, Reconstruct]:
        """Return `reconstruct` checkpointed, and with fewer shots (`Purifier.processes`)."""
        if self.purifier is None:
            raise InputError("DiffusionDetector: no network; use from_pretrained or from_denoiser")
        return self.purifier.processes()

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return the score with other summaries of its map, and with other gradients of the reconstruction."""
        pairs = {name: partial(self._summarise, summary) for name, summary in MAP_SUMMARIES.items()}
        processes = processes_of(self, residual=True)
        return ReconstructionScore(
            self.score_pair, self.reconstruct, self.sigma, self.noise_, pairs, processes
        ).surrogates()

    def _summarise(
        self, summary: Callable[[Tensor], Tensor], reference: Tensor, reconstruction: Tensor
    ) -> Tensor:
        return summary(self._places(reference - reconstruction, self.score_name).flatten(1))

    def compile_network(self) -> None:
        """Compile the UNet in place: minutes once, then faster calls at one batch size; the folder stays as it is."""
        if self.purifier is None:
            raise InputError("DiffusionDetector: no network attached")
        self.purifier.denoiser.unet.compile()

    # ---- folder

    def _save_parts(self, folder: Path) -> None:
        if self.purifier is None:
            raise InputError("DiffusionDetector: nothing to save, no network attached")
        self.purifier.denoiser.save_pretrained(folder)

    def _load_parts(self, folder: Path) -> None:
        self.attach(Denoiser.from_pretrained(folder))

    def _unproven(self) -> str:
        # weights of windows lie in (0, 1] for errors that are means of squares; below 0 they may exceed 1 by far.
        # Looked at for every score: `with_options` may turn to the weighed one later.
        errors = self.mean_error_
        if bool((errors >= 0).all()):
            return ""
        return f"mean_error_ goes down to {float(errors.min()):.6g}, need at least 0"
