"""DiffPure in front of any detector: add noise, let a diffusion model take it out, score what is left.

    score(x) = mean over draws e of A(clip(R(x + sigma e)))

Nie et al., "Diffusion Models for Adversarial Purification", ICML 2022, with the one-shot or m-shot reconstruction of
`diffad.diffusion.purifier` for R.

>>> detector = Purified.of(load_detector("runs/zarnd"), load_detector("runs/digits"), sigma=0.25)   # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_positive
from certify.noise import gaussian_noise
from certify.types import ScoreFunction
from diffad import folder
from diffad.attacks.gradients import Reconstruct, processes_of
from diffad.attacks.reconstruction import ReconstructionScore
from diffad.detector import Detector
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.model import Denoiser
from diffad.diffusion.purifier import Purifier

SIGMA = 0.25
DETECTOR, DIFFUSION = "detector", "diffusion"


class Purified(Detector):
    """Another detector's score of the purified image, averaged over stored noise draws.

    An attack on it differentiates purifier and detector together; `surrogates` offer the approximations (BPDA, fewer
    shots). A certificate of the way `denoise` speaks of A(R(x + noise)) under its own fresh noise, without the clip.
    A purifier that was trained on normals redraws what it has not seen as normal: it removes anomalies too, so that the
    clean AUROC may fall. The diffusion model and the detector are saved with it.

    Args:
        sigma: noise that is added, [0, 1] pixel units; None with `timestep` also None: 0.25.
        timestep: the noise of this step of the model's schedule instead.
        steps: network calls of the reconstruction, the m of m-shot.
        draws: stored noise draws that `score` averages over.
        seed: of the stored draws, and of the noise of an m-shot reconstruction.
    """

    name: ClassVar[str] = "purified"
    is_random: bool = True
    noise_: Tensor

    def __init__(
        self,
        sigma: float | None = None,
        timestep: int | None = None,
        steps: int = 1,
        draws: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if sigma is not None and timestep is not None:
            raise InputError(f"purified: got sigma = {sigma} and timestep = {timestep}, need one of them")
        if sigma is not None:
            if not isinstance(sigma, int | float) or isinstance(sigma, bool):
                raise InputError(f"purified: got sigma = {sigma!r}, need a number above 0, such as {SIGMA}")
            check_positive(sigma, "sigma")
        wanted = (("timestep", timestep, 0), ("steps", steps, 1), ("draws", draws, 1), ("seed", seed, 0))
        for name, value, least in wanted:
            if name == "timestep" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"purified: got {name} = {value!r}, need a whole number of at least {least}")
        self._sigma, self.timestep = sigma, timestep
        self.steps, self.draws, self.seed = steps, draws, seed
        self.behind: Detector | None = None
        self.purifier: Purifier | None = None
        self.register_buffer("noise_", torch.empty(0))

    @classmethod
    def of(cls, detector: Detector, diffusion: DiffusionDetector | Denoiser, **options: Any) -> Purified:
        """Put a diffusion model in front of a detector, fitted or not; call `fit` next."""
        return cls(**options).attach(detector, diffusion)

    @classmethod
    def from_spec(cls, what: str, options: Mapping[str, Any]) -> Purified:
        """As `--detector purified:WHAT,diffusion=FOLDER,sigma=0.25` asks for it; WHAT is a name or a folder."""
        from diffad.registry import load_detector  # which builds on detectors

        own = {name: value for name, value in options.items() if name != DIFFUSION}
        if DIFFUSION not in options:
            raise InputError("purified: names no diffusion model; give diffusion=FOLDER of a trained one")
        diffusion = load_detector(str(options[DIFFUSION]))
        if not isinstance(diffusion, DiffusionDetector):
            raise InputError(
                f"purified: {options[DIFFUSION]} holds a {diffusion.name}, need a diffusion detector"
            )
        try:
            return cls.of(load_detector(what), diffusion, **own)
        except TypeError as error:
            raise InputError(f"purified: does not take {own} ({error})") from error

    def attach(self, detector: Detector, diffusion: DiffusionDetector | Denoiser) -> Purified:
        """Use this detector behind this network, both frozen."""
        if isinstance(diffusion, DiffusionDetector):
            if diffusion.purifier is None:
                raise InputError("purified: the diffusion detector has no network; load a trained one")
            diffusion = diffusion.purifier.denoiser
        self.behind = detector.eval()
        self.has_gradient = detector.has_gradient
        self.purifier = Purifier(diffusion, shots=self.steps, seed=self.seed)
        return self

    @property
    def score_name(self) -> str:
        """The detector behind, with its own score if it has several."""
        inner = self._parts()[0]
        score = getattr(inner, "score_name", "")
        return f"{inner.name} {score}".strip()

    @property
    def sigma(self) -> float:
        """Noise that is added, [0, 1] pixel units."""
        if self.timestep is None:
            return SIGMA if self._sigma is None else self._sigma
        levels = self._parts()[1].denoiser.sigmas
        if self.timestep >= len(levels):
            raise InputError(
                f"purified: got timestep = {self.timestep}, the schedule has {len(levels)} steps"
            )
        return float(levels[self.timestep])

    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON."""
        return {
            "sigma": self._sigma,
            "timestep": self.timestep,
            "steps": self.steps,
            "draws": self.draws,
            "seed": self.seed,
        }

    def fingerprint(self) -> str:
        """Return a SHA-256 (hex) over this object and its parts: the arguments of the detector behind count too.

        So do the schedule of the diffusion model and what it predicts, which are not among its tensors.
        """
        inner, purifier = self._parts()
        network = folder.fingerprint(
            {
                "prediction_type": purifier.denoiser.prediction_type,
                "space_to_depth": purifier.denoiser.space_to_depth,
            },
            {"alphas_cumprod": purifier.denoiser.alphas_cumprod},
        )
        own = super().fingerprint() + inner.fingerprint() + network
        return hashlib.sha256(own.encode()).hexdigest()

    def _fit(self, train: Tensor, seed: int) -> None:
        """Keep the noise, and fit the detector behind on the images as they are, if nobody has."""
        inner, _ = self._parts()
        if inner.image_shape is None:
            inner.fit(train, seed=seed)
            self.has_gradient = inner.has_gradient  # that of a function is known once it is fitted
        elif "noise_sigma" in self.fit_info:
            raise InputError(
                f"purified: {inner.name} behind is fitted already, so it cannot see noisy normals; leave the noise out"
            )
        if inner.image_shape != tuple(train.shape[1:]):
            raise InputError(
                f"purified: {inner.name} behind takes {inner.image_shape}, got {tuple(train.shape[1:])}"
            )
        # keyed, not from torch's generator of this seed: that gives the steps of the purifier their noise
        noise = gaussian_noise(self.seed, 0, "fit", 0, (self.draws, *train.shape[1:]))
        self.noise_ = torch.from_numpy(noise).float().to(train.device)
        self._chain().score(train[:1])  # what does not fit together says so now

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return self._chain().score(images, noise).to(images.dtype)

    def _chain(self) -> ReconstructionScore:
        inner, purifier = self._parts()
        # a graph cannot look at values; elsewhere a NaN of the purifier is refused
        score = inner.score_noisy if torch.compiler.is_exporting() else inner.score
        return ReconstructionScore(
            partial(_score_clipped, score),
            purifier.reconstruct,
            self.sigma,
            self.noise_,
            {name: partial(_score_clipped, score) for name, score in inner.surrogates().items()},
            processes_of(purifier, residual=False),
        )

    def reconstruct(self, noisy: Float[Tensor, "b c h w"], sigma: float) -> Float[Tensor, "b c h w"]:
        """Reconstruction of noisy = x + sigma * e, a function of `noisy` alone."""
        return self._parts()[1].reconstruct(noisy, sigma)

    def processes(self) -> dict[str, Reconstruct]:
        """Return `reconstruct` checkpointed, and with fewer shots."""
        return self._parts()[1].processes()

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return the score with the surrogates of the detector behind, and with other gradients of the purifier."""
        return {**self._chain().surrogates()} if self.has_gradient else {}

    def compile_network(self) -> None:
        """Compile the UNet in place."""
        self._parts()[1].denoiser.unet.compile()

    def in_bank(self, images: Float[Tensor, "n c h w"]) -> list[int]:
        """Return which images the detector behind keeps."""
        return self._parts()[0].in_bank(images)

    def _parts(self) -> tuple[Detector, Purifier]:
        if self.behind is None or self.purifier is None:
            raise InputError(
                "purified: has no parts; use Purified.of(detector, diffusion), or --detector "
                "purified:DETECTOR,diffusion=FOLDER"
            )
        return self.behind, self.purifier

    def _save_parts(self, directory: Path) -> None:
        inner, purifier = self._parts()
        inner.save_pretrained(directory / DETECTOR)
        purifier.denoiser.save_pretrained(directory / DIFFUSION)

    def _load_parts(self, directory: Path) -> None:
        from diffad.registry import load_detector  # which builds on detectors

        self.attach(load_detector(directory / DETECTOR), Denoiser.from_pretrained(directory / DIFFUSION))


def _score_clipped(score: ScoreFunction, reference: Tensor, reconstruction: Tensor) -> Tensor:
    return score(reconstruction.clamp(0.0, 1.0))
