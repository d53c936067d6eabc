"""ZARND, zero-shot adversarially robust novelty detection: k nearest neighbours on features of a robust backbone.

    score(x) = sum over the k nearest normals n of |f(x) - f(n)|

>>> from diffad.backbones import load_backbone                              # doctest: +SKIP
>>> detector = Zarnd.from_backbone(load_backbone("runs/robust")).fit(normals)   # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from certify.checks import InputError
from certify.console import progress
from certify.types import FloatArray, ScoreFunction
from diffad.attacks.summaries import soft_minimum
from diffad.backbones import Backbone, load_backbone
from diffad.detector import Detector
from diffad.fast_neighbours import nearest_verified
from diffad.neighbours import k_centre, pair_distance

Z = TypeVar("Z", bound="Zarnd")
FEATURES = "features"
_BATCH, _SOFT = 64, 32


class Zarnd(Detector):
    """Sum of the distances of an image's features to those of its k nearest normal images.

    The paper sums Euclidean distances of plain features, k = 2; the published code normalises the features to length
    1 and sums *squared* distances, which ranks differently: `normalize=True, squared=True`. The network stays as it
    is; `fit` keeps the features of the normals. The attack surface is the image given to `score`, at its own size,
    whatever size the network resizes it to.

    Args:
        k: number of neighbours, at most the number of training images.
        normalize: divide the features by their L2 norm first.
        squared: sum squared distances.
        layers: names of `Backbone.layers` whose means over the image are joined; `features` is the output of the
            backbone.
        bank_size: keep so many normals, chosen by farthest-first traversal (k-centre); None: all. `fit_info` says
            how far the farthest normal lies from its nearest kept one (`cover`), which bounds the change of each
            distance.
    """

    name: ClassVar[str] = "zarnd"
    bank: Tensor

    def __init__(
        self,
        k: int = 2,
        normalize: bool = False,
        squared: bool = False,
        layers: Sequence[str] = (FEATURES,),
        bank_size: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("k", k), ("bank_size", k if bank_size is None else bank_size)):
            if value < 1:
                raise InputError(f"zarnd: got {name} = {value}, need at least 1")
        if bank_size is not None and bank_size < k:
            raise InputError(f"zarnd: got bank_size = {bank_size} for k = {k} neighbours, need at least k")
        if not layers:
            raise InputError(f"zarnd: got no layers, need at least one, for example {FEATURES!r}")
        self.k, self.normalize, self.squared = k, normalize, squared
        self.layers, self.bank_size, self.min_images = list(layers), bank_size, k
        self.backbone: Backbone | None = None
        self.register_buffer("bank", torch.empty(0))

    @classmethod
    def from_backbone(cls: type[Z], backbone: Backbone, **options: Any) -> Z:
        """A detector on this network, frozen; call `fit` next."""
        return cls(**options).attach(backbone)

    def attach(self: Z, backbone: Backbone) -> Z:
        """Use this network, frozen and in eval mode."""
        self.backbone = backbone.eval().requires_grad_(False)
        return self

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the features (b, d) that distances are measured between; differentiable."""
        if self.backbone is None:
            raise InputError(
                "zarnd: has no backbone; use Zarnd.from_backbone(load_backbone(FOLDER)), or "
                "`diffad fit --detector zarnd --backbone FOLDER`"
            )
        if self.layers == [FEATURES]:
            found = self.backbone.features(images)
        else:
            known = {FEATURES: self.backbone.features(images), **self.backbone.layers(images)}
            missing = [layer for layer in self.layers if layer not in known]
            if missing:
                raise InputError(f"zarnd: unknown layers {missing}, allowed are {', '.join(known)}")
            # a map becomes one vector, its mean over the image, as the network's last one does
            parts = [known[layer] for layer in self.layers]
            found = torch.cat([part.mean((2, 3)) if part.ndim == 4 else part for part in parts], dim=1)
        return F.normalize(found, dim=1) if self.normalize else found

    def _fit(self, train: Tensor, seed: int) -> None:
        batches = progress(list(torch.split(train, _BATCH)), "features of normals")
        features = torch.cat([self.features(batch).float() for batch in batches])
        if not bool(torch.isfinite(features).all()):
            raise InputError("zarnd: the backbone gives NaN or infinite features of training images")
        self.bank = features
        self.fit_info["duplicates"] = len(features) - len(torch.unique(features, dim=0))
        if self.bank_size is not None and self.bank_size < len(features):
            self.bank = features[k_centre(features, self.bank_size, seed=seed)].clone()
            self.fit_info["cover"] = float(nearest_verified(features, self.bank, 1)[0].max())
        self.fit_info["bank"] = len(self.bank)

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        distances = self.neighbour_distances(images, self.k)
        return self._sum(distances).to(images.dtype)

    def neighbour_distances(self, images: Float[Tensor, "b c h w"], k: int) -> Float[Tensor, "b k"]:
        """Return float64 feature distances (b, k) to the k nearest normals, ascending; differentiable.

        The neighbours are found anew at every call; the gradient holds them fixed, which they are almost everywhere.
        """
        features = self.features(images)
        _, indices = nearest_verified(features.detach(), self.bank, k)
        return torch.stack([pair_distance(features, self.bank[column]) for column in indices.T], dim=1)

    def _sum(self, distances: Tensor) -> Tensor:
        return (distances.square() if self.squared else distances).sum(1)

    def score_sweep(
        self, images: Float[Tensor, "n c h w"], ks: Sequence[int], *, batch_size: int = 256
    ) -> dict[int, FloatArray]:
        """Return the scores float64 (n,) for several k from one search of the largest."""
        parts: dict[int, list[FloatArray]] = {k: [] for k in ks}
        with torch.no_grad():
            for batch in torch.split(images, batch_size):
                self._check_input(batch)
                distances = self.neighbour_distances(batch, max(ks))
                for k in ks:
                    parts[k].append(self._sum(distances[:, :k]).cpu().numpy())
        return {k: np.concatenate(found) for k, found in parts.items()}

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return `mean_feature` and `soft_nn`.

        `mean_feature` is the squared distance to the mean of the bank, which the published PGD attack ascends: an
        attack on it overstates robustness, and it is here to show by how much. `soft_nn` is a soft minimum over the
        nearest 32 normals, whose gradient does not jump where neighbours change.
        """
        centre = self.bank.mean(0)

        def mean_feature(images: Tensor) -> Tensor:
            """Squared distance of the features to the mean feature of normals."""
            return (self.features(images) - centre).square().sum(1)

        def soft_nn(images: Tensor) -> Tensor:
            """Soft minimum of the distances to the nearest normals."""
            distances = self.neighbour_distances(images, min(_SOFT, len(self.bank)))
            return soft_minimum(distances).to(images.dtype)

        return {"mean_feature": mean_feature, "soft_nn": soft_nn}

    def in_bank(self, images: Float[Tensor, "n c h w"]) -> list[int]:
        """Return which images have the very features of a normal in the bank: most likely test images it has seen."""
        with torch.no_grad():
            distances = [
                nearest_verified(self.features(batch), self.bank, 1)[0]
                for batch in torch.split(images, _BATCH)
            ]
        return torch.cat(distances)[:, 0].eq(0.0).nonzero()[:, 0].tolist()

    # ---- folder

    def _save_parts(self, directory: Path) -> None:
        if self.backbone is None:
            raise InputError("zarnd: nothing to save, no backbone attached")
        self.backbone.save_pretrained(directory / "backbone")

    def _load_parts(self, directory: Path) -> None:
        self.attach(load_backbone(directory / "backbone"))
