"""What every adapter shares: somebody else's code computes the score, and a probe says whether it is still the same.

Foreign code has no fingerprint of ours. So `fit` scores a few fixed images, keeps both, and whoever loads the detector
elsewhere scores them again: another version of a library, or an edited function, is refused instead of trusted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError
from certify.probe import rounding
from diffad.detector import Detector

F = TypeVar("F", bound="ForeignDetector")

PROBES = 4  # of the training images, and as many of noise
MOVED = 0.1  # width of the noise on a training image, whose score in itself may be the rounding of zero


class ForeignDetector(Detector):
    """A detector whose score is computed by code that is not part of diffad.

    An adapter writes `_prepare` and `_foreign`, and sets `has_gradient`. `fit` refuses a score that is random, or that
    depends on the other images of a batch: neither a certificate nor an attack would be about one image then.

    Args:
        what: which foreign score, in the words of the adapter.
        options: its arguments, JSON values.
    """

    probe: Tensor
    probe_scores: Tensor

    def __init__(self, what: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.what, self.options = what, dict(options or {})
        self.register_buffer("probe", torch.empty(0))
        self.register_buffer("probe_scores", torch.empty(0, dtype=torch.float64))

    @classmethod
    def from_spec(cls: type[F], what: str, options: Mapping[str, Any]) -> F:
        """Return a new detector as `--detector KIND:WHAT,name=value` asks for it."""
        return cls(what, options)

    @property
    def score_name(self) -> str:
        """What is scored, as rows and folders name it."""
        return self.what.replace(":", ".").replace("/", ".")

    @property
    def row_name(self) -> str:
        """Adapter and score, such as `anomalib:Patchcore`: two models of a library are two rows of a run folder."""
        return f"{self.name}:{self.score_name}"

    @abstractmethod
    def _prepare(self, train: Tensor, seed: int) -> None:
        """Fit, open or import what computes the scores."""

    @abstractmethod
    def _restore(self, directory: Path) -> None:
        """Do the same from the loaded buffers and folder."""

    @abstractmethod
    def _foreign(self, images: Tensor) -> Any:
        """Return the scores (b,) or (b, 1) of images, higher = more anomalous, as a tensor or an array."""

    def _fit(self, train: Tensor, seed: int) -> None:
        self._prepare(train, seed)
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(2 * PROBES, *train.shape[1:], generator=generator).to(train)
        near = train[:PROBES] + MOVED * (noise[PROBES:][: len(train)] - 0.5)
        self.probe = torch.cat([near.clamp(0, 1), noise[:PROBES]]).float()
        self.probe_scores = self._probe_again()
        self._check_probe(self._probe_again(), "gives the same images other scores the second time")
        alone = torch.cat([self._score(image[None], None) for image in self.probe]).double()
        self._check_probe(
            alone, "scores an image differently alone and in a batch; where it allows it, give max_batch=1"
        )

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        given = images if self.has_gradient else images.detach()
        scores = self._as_tensor(self._foreign(given))
        count = images.shape[0]  # len would fix the batch of an exported graph
        if scores.shape not in ((count,), (count, 1)):
            raise InputError(
                f"{self._title}: returned shape {tuple(scores.shape)} for {count} images, need ({count},)"
            )
        # an exported graph cannot branch on values
        if not torch.compiler.is_exporting() and not bool(torch.isfinite(scores.detach()).all()):
            bad = int((~torch.isfinite(scores.detach())).reshape(-1).nonzero()[0])
            raise InputError(
                f"{self._title}: returned NaN or infinity for image {bad} of a batch of {count}; need a finite number "
                "for every image, black, white and noisy ones too"
            )
        return scores.reshape(-1).to(images)

    def _load_parts(self, directory: Path) -> None:
        self._restore(directory)
        with torch.no_grad():
            found = self._probe_again()
        self._check_probe(found, f"no longer gives the scores that {directory} was saved with; fit it again")

    def _as_tensor(self, scores: Any) -> Tensor:
        """Return scores that may be an array or a list as a tensor."""
        if isinstance(scores, Tensor):
            return scores
        try:
            return torch.from_numpy(np.array(scores, dtype=np.float64))
        except (TypeError, ValueError):
            raise InputError(
                f"{self._title}: returned {type(scores).__name__}, need one number an image"
            ) from None

    @property
    def _title(self) -> str:
        return f"{self.name}:{self.what or self.score_name}"

    def _probe_again(self) -> Tensor:
        return self._score(self.probe, None).detach().double()

    def _check_probe(self, found: Tensor, fault: str) -> None:
        """Refuse probe scores that differ by more than rounding, such as that of another batch or another CPU.

        Normals and noise are measured apart: a far outlier's score is no measure for normals. Scores come in the dtype
        of the probe, whatever the foreign code computes in.
        """
        ulp = torch.finfo(self.probe.dtype).eps
        for kind in (slice(None, -PROBES), slice(-PROBES, None)):
            difference = float((found - self.probe_scores)[kind].abs().max())
            allowed = rounding(self.probe_scores[kind].cpu().numpy(), ulp)
            if difference > float(allowed[0]):
                raise InputError(f"{self._title}: {fault} (they differ by {difference:.3g})")
