"""The contract of every detector: fit on normal images, score, calibrate, save, load.

>>> import torch
>>> from diffad import detector_class
>>> normals = torch.rand(40, 1, 8, 8)
>>> detector = detector_class("pixel_nn")().fit(normals[:20], calibration=normals[20:])
>>> detector.score(torch.rand(3, 1, 8, 8)).shape
torch.Size([3])
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from certify.checks import InputError, check_images
from certify.smoothing import threshold_rank
from certify.types import FloatArray, ScoreFunction
from diffad import folder
from diffad.fit_noise import noisy_copies

# a TypeVar, not Self: beartype refuses Self on the methods that jaxtyping decorates under pytest
D = TypeVar("D", bound="Detector")

DEFAULT_QUANTILE = 0.95


class Detector(nn.Module, ABC):
    """An anomaly score on images in [0, 1], higher = more anomalous, fitted on normal images only.

    A detector writes `_fit` and `_score`. Its constructor takes plain JSON values and keeps each under its
    own name (that is its saved configuration), does no work, and registers every fitted tensor as a buffer
    that is empty until `fit`. A score is differentiable in the images (or says that it is not), treats each image
    by itself, and touches no global random state.

    Attributes:
        name: key in `diffad.DETECTORS`.
        min_images: least number of training images.
        approximate_gradient: what of the gradient of `score` is approximate by choice, which every attack on it then
            states; None where it is exact.
        is_random: the score depends on noise, by default the draws stored by `fit`. Scoring with stored draws
            is deterministic but is not the certified object, which is a percentile over fresh noise.
        has_gradient: whether `score` is differentiable; a black box is attacked by its scores alone.
        image_shape: (channel, height, width) seen by `fit`; None before.
        threshold_: `predict` flags scores above it; None until calibrated.
    """

    name: ClassVar[str]
    min_images: int = 1
    is_random: bool = False
    has_gradient: bool = True
    approximate_gradient: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.image_shape: tuple[int, int, int] | None = None
        self.threshold_: float | None = None
        self.fit_info: dict[str, int | float] = {}
        self.eval()

    @abstractmethod
    def _fit(self, train: Tensor, seed: int) -> None:
        """Set the fitted buffers from checked images; runs without gradients, after `image_shape` is set."""

    @abstractmethod
    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """Return the scores (b,) of checked images; noise None means the stored draws, if there are any."""

    @property
    def row_name(self) -> str:
        """What rows and manifests call it: `name`, and of somebody else's detector also which one it is."""
        return self.name

    @property
    def lipschitz(self) -> float | None:
        """Proven global L2 Lipschitz constant of `score`, [0, 1] pixel units; None without a proof.

        A detector that has one also gives `score_interval`, and can be certified without noise.
        """
        return None

    @property
    def pair_lipschitz(self) -> float | None:
        """Proven L2 Lipschitz constant of `score_pair` in its reference; None without a proof."""
        return None

    def score(
        self, images: Float[Tensor, "b c h w"], noise: Float[Tensor, "draws c h w"] | None = None
    ) -> Float[Tensor, " b"]:
        """Return one score an image, higher = more anomalous, in the dtype of `images`; differentiable.

        `noise` is standard normal, shared by all images of the call, and only for a detector that
        `is_random`.
        """
        self._check_input(images, noise)
        return self._score(images, noise)

    def score_noisy(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Return `score` of images that Gaussian noise or a denoiser has carried out of [0, 1].

        The ways `input` and `denoise` of a certificate call this. Nothing is clipped: a clip would be part of
        the score that is certified, so a detector that wants one puts it into `_score`.
        """
        self._check_shape(images)
        return self._score(images, None)

    def forward(self, images: Tensor) -> Tensor:
        """Return `score(images)`."""
        return self.score(images)

    def fit(
        self: D,
        train: Float[Tensor, "n c h w"],
        *,
        calibration: Float[Tensor, "m c h w"] | None = None,
        seed: int = 0,
        noise_sigma: float | None = None,
        noise_copies: int = 1,
    ) -> D:
        """Fit on normal images in [0, 1]; with `calibration`, held-out normals, set the threshold too.

        With `noise_sigma` the detector sees `noise_copies` noisy versions of each image instead, x + N(0, sigma^2) in
        [0, 1] pixel units, not clipped: what a certificate of the way `input` will show it.
        """
        check_images(train, name="train")
        if len(train) < self.min_images:
            raise InputError(
                f"{self.name}: got {len(train)} training images, need at least {self.min_images}"
            )
        if noise_sigma is None and noise_copies != 1:
            raise InputError(
                f"noise_copies: got {noise_copies} without noise_sigma, which says how much noise"
            )
        info: dict[str, int | float] = {"images": len(train), "seed": seed}
        seen = train.detach()
        if noise_sigma is not None:
            info |= {"noise_sigma": float(noise_sigma), "noise_copies": noise_copies}
            seen = noisy_copies(seen, noise_sigma, noise_copies, seed)
        self.image_shape = (train.shape[1], train.shape[2], train.shape[3])
        self.threshold_, self.fit_info = None, info
        try:
            with torch.no_grad():
                self._fit(seen, seed)
        except BaseException:
            self.image_shape = None  # a half fitted detector must not score
            raise
        self.eval()
        if calibration is not None:
            self.calibrate(calibration)
        return self

    def score_interval(self, images: Float[Tensor, "b c h w"]) -> tuple[FloatArray, FloatArray]:
        """Return float64 (lower, upper), each (b,), that enclose the score of real arithmetic."""
        raise InputError(
            f"{self.name}: has no proven Lipschitz constant, so no score interval; certify with noise"
        )

    def reconstruct(self, noisy: Float[Tensor, "b c h w"], sigma: float) -> Float[Tensor, "b c h w"]:
        """Return the clean image that the detector believes in, given the image plus N(0, sigma^2) noise."""
        raise InputError(
            f"{self.name}: does not reconstruct images; smooth it by the way input, or by denoise with a purifier"
        )

    def score_pair(
        self, reference: Float[Tensor, "b c h w"], reconstruction: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, " b"]:
        """Return the score of a clean image against a reconstruction; Lipschitz in the former."""
        raise InputError(f"{self.name}: does not compare an image with a reconstruction")

    def compile_network(self) -> None:
        """Have the network compiled by `torch.compile` at its first use; the score changes by rounding only."""
        raise InputError(f"{self.name}: has no network to compile; leave --compile out")

    def anomaly_map(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Return where in each image the anomaly lies, higher = more anomalous, without gradient."""
        raise InputError(f"{self.name}: gives no anomaly map")

    @property
    def map_lipschitz(self) -> float | None:
        """Proven global L2 Lipschitz constant of every pixel of `anomaly_map`; None without a proof.

        A detector that has one also gives `map_interval`, and its maps can be certified without noise.
        """
        return None

    def map_interval(self, images: Float[Tensor, "b c h w"]) -> tuple[FloatArray, FloatArray]:
        """Return float64 (lower, upper), each (b, h, w), that enclose the map of real arithmetic."""
        raise InputError(f"{self.name}: has no proven Lipschitz constant of its map, so no interval of it")

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return smoother stand-ins for `score`, by name, for attacks to differentiate (`attack(objective=name)`).

        Each maps images to (b,), higher = more anomalous; of a detector that `is_random` it takes `noise` as `score`
        does. What an attack finds with one is judged by `score`.
        """
        return {}

    def in_bank(self, images: Float[Tensor, "n c h w"]) -> list[int]:
        """Return which images are among the normals that the detector keeps to compare with, if it keeps any.

        Their scores would be memory. A detector that keeps normals overrides this, with images on any device.
        """
        return []

    def score_array(self, images: Float[Tensor, "n c h w"], *, batch_size: int = 256) -> FloatArray:
        """Return the scores of many images as float64 (n,), batch by batch and without gradient."""
        with torch.no_grad():
            parts = [self.score(batch).double().cpu().numpy() for batch in torch.split(images, batch_size)]
        return np.concatenate(parts)

    def calibrate(self, images: Float[Tensor, "n c h w"], quantile: float = DEFAULT_QUANTILE) -> float:
        """Set and return `threshold_`: the ceil((n + 1) quantile)-th smallest score of n held-out normal
        images.

        A new normal image, exchangeable with these, is then flagged with probability at most 1 - quantile
        (the rank argument of split conformal prediction). Too few images for that are refused.
        """
        rank = threshold_rank(len(images), quantile)
        self.threshold_ = float(np.sort(self.score_array(images))[rank - 1])
        return self.threshold_

    def predict(self, images: Float[Tensor, "b c h w"]) -> Int[Tensor, " b"]:
        """Return int64 labels (b,): 1 where the score exceeds `threshold_`, else 0."""
        if self.threshold_ is None:
            raise InputError(
                f"{self.name}: has no threshold; call calibrate(held-out normal images), "
                "or fit(..., calibration=...)"
            )
        with torch.no_grad():
            return (self.score(images) > self.threshold_).long()

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def fingerprint(self) -> str:
        """Return a SHA-256 (hex) over class, arguments, image shape and tensors: the score's identity."""
        self._require_fitted()
        return folder.fingerprint(
            {"class": type(self).__name__, "arguments": self.config(), "image_shape": self.image_shape},
            self.state_dict(),
        )

    def save_pretrained(self, directory: Path | str) -> None:
        """Write config.json, model.safetensors and README.md into a folder; replaces an older one there."""
        directory = Path(directory)
        values = (
            type(self).__name__,
            version("diffad"),
            self.name,
            self.config(),
            list(self._require_fitted()),
            self.threshold_,
            self.fit_info,
            self.fingerprint(),
        )
        config = dict(zip(folder.KEYS, values, strict=True))
        facts = {
            "proven L2 Lipschitz constant of the score": self.lipschitz,
            "proven L2 Lipschitz constant of the pair score in its reference": self.pair_lipschitz,
        }
        card = folder.card(config, (inspect.getdoc(type(self)) or "").partition("\n")[0], facts)
        directory.mkdir(parents=True, exist_ok=True)
        self._save_parts(directory)
        folder.write(directory, config, self._own_tensors(), card)

    @classmethod
    def from_pretrained(cls: type[D], directory: Path | str) -> D:
        """Load a folder that this class has saved; `diffad.load_detector` finds the class by itself.

        Strict about class, arguments, tensors and their fingerprint; whatever does not fit raises `InputError`.
        """
        directory = Path(directory)
        config = folder.read_config(directory)
        if (config["_class_name"], config["name"]) != (cls.__name__, getattr(cls, "name", None)):
            raise InputError(
                f"{directory}: holds a {config['_class_name']} ({config['name']}), not a {cls.__name__}; "
                "load_detector finds the class"
            )
        try:
            detector = cls(**config["arguments"])
            channel, height, width = (int(side) for side in config["image_shape"])
            detector.image_shape = (channel, height, width)
            detector.threshold_ = None if config["threshold"] is None else float(config["threshold"])
            detector.fit_info = {
                str(key): value if isinstance(value, float) else int(value)
                for key, value in config["fit"].items()
            }
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{directory / folder.CONFIG}: {folder.one_line(error)}; save the detector again"
            ) from error
        for key, tensor in folder.read_tensors(directory, detector._own_tensors()).items():
            setattr(detector, key, tensor)
        detector._load_parts(directory)
        detector.eval()
        if detector.fingerprint() != config["fingerprint"]:
            raise InputError(
                f"{directory}: {folder.CONFIG} and the tensors beside it do not belong together, or were "
                "changed since; save the detector again"
            )
        if fault := detector._unproven():
            raise InputError(f"{directory}: {fault} for the Lipschitz constant of {cls.name}; fit it again")
        return detector

    def _own_tensors(self) -> dict[str, Tensor]:
        return dict(self.named_buffers(recurse=False))

    def _save_parts(self, directory: Path) -> None:
        """Write what is not a buffer of the detector itself, for example a network in its own format."""

    def _load_parts(self, directory: Path) -> None:
        """Read what `_save_parts` wrote, strictly; arguments, `image_shape` and buffers are set already."""

    def _unproven(self) -> str:
        """Return what about the tensors breaks a constant that is declared, with the value found; "" if nothing does.

        A detector that declares `lipschitz`, `pair_lipschitz` or `map_lipschitz` for what its own `fit` makes
        overrides this, since a folder may hold anything. One that computes the constant from its tensors, or whose
        constant holds for all of them (a distance to stored points), need not.
        """
        return ""

    def _require_fitted(self) -> tuple[int, int, int]:
        if self.image_shape is None:
            raise InputError(f"{self.name}: is not fitted; call fit(normal images) or load a folder")
        return self.image_shape

    def _check_shape(self, images: Tensor) -> tuple[int, int, int]:
        shape = self._require_fitted()
        if tuple(images.shape[1:]) != shape:
            raise InputError(f"{self.name}: got images {tuple(images.shape[1:])}, fitted on {shape}")
        return shape

    def _check_input(self, images: Tensor, noise: Tensor | None = None) -> None:
        """Refuse images or noise that do not fit what `fit` saw; looks at values only, so gradients flow."""
        check_images(images)
        shape = self._check_shape(images)
        if noise is None:
            return
        if not self.is_random:
            raise InputError(f"{self.name}: got noise, but its score is not random; leave noise out")
        if len(noise) == 0 or tuple(noise.shape[1:]) != shape or not bool(torch.isfinite(noise).all()):
            raise InputError(
                f"{self.name}: got noise {tuple(noise.shape)}, need finite values, (draws, *{shape})"
            )


def allowed_quantile(count: int) -> float:
    """Return .95, or what so few held-out normals allow: count / (count + 1) cut, which a float may exceed."""
    return min(DEFAULT_QUANTILE, math.floor(1e6 * count / (count + 1)) / 1e6)
