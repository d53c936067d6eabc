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

from certify.checks import InputError, check_choice
from certify.console import progress
from certify.types import FloatArray, ScoreFunction
from diffad.attacks.summaries import soft_minimum
from diffad.backbones import Backbone, load_backbone
from diffad.detector import Detector
from diffad.fast_neighbours import nearest_verified
from diffad.neighbours import k_centre, largest_norm, pair_distance, search_error
from diffad.rounding import enclose, gamma
from diffad.zarnd.candidates import EXACT, INDEXES, Candidates, nearest_of
from diffad.zarnd.measures import copies, coreset_change, index_recall

Z = TypeVar("Z", bound="Zarnd")
FEATURES = "features"
_BATCH, _SOFT = 64, 32
_CANDIDATES, _SPARE = 4, 8  # an index proposes 4 k + 8 neighbours
_SAME = 1e-5  # features this near, relative to their length, are those of one image in two batches


class Zarnd(Detector):
    """Sum of the distances of an image's features to those of its k nearest normal images.

    The paper sums Euclidean distances of plain features, k = 2; the published code normalises the features to length
    1 and sums *squared* distances, which ranks differently: `normalize=True, squared=True`. The network stays as it
    is; `fit` keeps the features of the normals. The attack surface is the image given to `score`, at its own size,
    whatever size the network resizes it to. Images may lie on another device than the network, batch by batch.

    Lipschitz constant: the sum of the k smallest distances is the least over all k-subsets of the bank of a sum of
    distances |f(x) - f(n)|, each of which is as steep as f at most; so L = k L_f where f has a proven constant, which
    the linear features of `diffad.backbones.projections` have (L_f = 1). Lengths divided out, squares, joined layers
    and an index that may miss neighbours have none.

    Args:
        k: number of neighbours, at most the number of training images.
        normalize: divide the features by their L2 norm first.
        squared: sum squared distances.
        layers: names of `Backbone.layers` whose means over the image are joined; `features` is the output of the
            backbone.
        bank_size: keep so many normals, chosen by farthest-first traversal (k-centre); None: all. `fit_info` says
            how far the farthest normal lies from its nearest kept one (`cover`), which bounds the change of the
            nearest distance, and by how much the scores of normals that were left out have risen
            (`diffad.zarnd.measures`).
        index: `exact`, or `faiss_hnsw`, `faiss_ivf` for banks of a million: neighbours may be missed, which raises a
            score (`diffad.zarnd.candidates`); `fit_info` says how many (`index_recall`).
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
        index: str = EXACT,
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
        self.index = check_choice(index, INDEXES, "index")
        self.backbone: Backbone | None = None
        self._candidates: Candidates | None = None
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
        """Return the features (b, d) that distances are measured between, where the network is; differentiable.

        A network in float64, as linear features are, makes float64 of float32 images.
        """
        if self.backbone is None:
            raise InputError(
                "zarnd: has no backbone; use Zarnd.from_backbone(load_backbone(FOLDER)), or "
                "`diffad fit --detector zarnd --backbone FOLDER`"
            )
        weights = next(self.backbone.network.parameters())
        images = images.to(weights.device, torch.promote_types(images.dtype, weights.dtype))
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
        batches = progress(torch.split(train, _BATCH), "features of normals", -(-len(train) // _BATCH))
        features = torch.cat([self.features(batch).float() for batch in batches])
        if not bool(torch.isfinite(features).all()):
            raise InputError("zarnd: the backbone gives NaN or infinite features of training images")
        self.fit_info["duplicates"] = copies(train)
        if self.fit_info["duplicates"] < len(train) - 1 and bool((features == features[0]).all()):
            raise InputError(
                "zarnd: the backbone gives all images the same feature; were its weights loaded?"
            )
        self.bank = features
        if self.bank_size is not None and self.bank_size < len(features):
            kept = k_centre(features, self.bank_size, seed=seed)
            self.bank = features[kept].clone()
            self.fit_info["cover"] = float(nearest_verified(features, self.bank, 1)[0].max())
            self.fit_info |= coreset_change(features, kept, self.k, self._sum, seed)
        self.fit_info["bank"] = len(self.bank)
        self._build_index()
        if self._candidates is not None and len(self.bank) > self.k:
            self.fit_info |= index_recall(self.bank, self._search, self.k, self._sum, seed)

    def _build_index(self) -> None:
        self._candidates = None if self.index == EXACT else Candidates(self.index, self.bank)

    def _search(self, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return distances (b, k) to the nearest normals that are found, ascending, and their places in the bank."""
        if self._candidates is None:
            return nearest_verified(features, self.bank, k)
        count = min(_CANDIDATES * k + _SPARE, len(self.bank))
        return nearest_of(features, self.bank, self._candidates.propose(features, count), k)

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return self._sum(self.neighbour_distances(images, self.k)).to(images)

    def neighbour_distances(self, images: Float[Tensor, "b c h w"], k: int) -> Float[Tensor, "b k"]:
        """Return float64 feature distances (b, k) to the k nearest normals, ascending; differentiable.

        The neighbours are found anew at every call; the gradient holds them fixed, which they are almost everywhere.
        """
        features = self.features(images)
        _, indices = self._search(features.detach(), k)
        return torch.stack([pair_distance(features, self.bank[column]) for column in indices.T], dim=1)

    @property
    def lipschitz(self) -> float | None:
        """k times the constant of the features; None unless they are linear, as they come, and searched exactly."""
        plain = not self.normalize and not self.squared and self.layers == [FEATURES] and self.index == EXACT
        if self.backbone is None or self.image_shape is None or not plain:
            return None
        constant = self.backbone.lipschitz(self.image_shape)
        return None if constant is None else self.k * constant

    def score_interval(self, images: Float[Tensor, "b c h w"]) -> tuple[FloatArray, FloatArray]:
        """Return float64 bounds (b,) of the exact sum of distances for the stored weights and bank.

        With y = (x - mean) / std of d pixels, a computed W y is off by at most gamma(d + 2) |W|_F |y|, which moves each
        of the sorted distances by no more. The rest is as in `PixelNN.score_interval`.
        """
        if self.backbone is None or self.lipschitz is None:
            return super().score_interval(images)
        self._check_input(images)
        with torch.no_grad():
            features = self.features(images)
            distances, _ = nearest_verified(features, self.bank, self.k)
            normalised = (images.to(features) - self.backbone.mean) / self.backbone.std
            size = torch.linalg.vector_norm(normalised.flatten(1), dim=1).cpu().numpy()
            frobenius = (
                float(sum(w.double().square().sum() for w in self.backbone.network.parameters())) ** 0.5
            )
        dims, pixels = features.shape[1], normalised[0].numel()
        slack = search_error(dims, largest_norm(features), largest_norm(self.bank))
        projected = 2.0 * gamma(pixels + 4) * frobenius * size[:, None]
        # k more coordinates pay for the summation of k distances
        lower, upper = enclose(distances.cpu().numpy(), dims + self.k, square_below=slack, absolute=projected)
        return lower.sum(1), upper.sum(1)

    def _sum(self, distances: Tensor) -> Tensor:
        return (distances.square() if self.squared else distances).sum(1)

    def score_sweep(
        self, images: Float[Tensor, "n c h w"], ks: Sequence[int], *, batch_size: int = 256
    ) -> dict[int, FloatArray]:
        """Return the scores float64 (n,) for several k from one search of the largest; k at most the bank."""
        if len(ks) == 0 or min(ks) < 1 or max(ks) > len(self.bank):
            raise InputError(
                f"zarnd: got ks {list(ks)} for a bank of {len(self.bank)}; need some, each from 1 to its size"
            )
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
            return (self.features(images) - centre).square().sum(1).to(images)

        def soft_nn(images: Tensor) -> Tensor:
            """Soft minimum of the distances to the nearest normals."""
            distances = self.neighbour_distances(images, min(_SOFT, len(self.bank)))
            return soft_minimum(distances).to(images)

        return {"mean_feature": mean_feature, "soft_nn": soft_nn}

    def in_bank(self, images: Float[Tensor, "n c h w"]) -> list[int]:
        """Return which images have the features of a normal in the bank, up to how a batch is rounded."""
        found = []
        with torch.no_grad():
            for batch in torch.split(images, _BATCH):
                features = self.features(batch)
                distances = nearest_verified(features, self.bank, 1)[0][:, 0]
                found.append(distances <= _SAME * features.double().norm(dim=1))
        return torch.cat(found).nonzero()[:, 0].tolist()

    # ---- folder

    def _save_parts(self, directory: Path) -> None:
        if self.backbone is None:
            raise InputError("zarnd: nothing to save, no backbone attached")
        self.backbone.save_pretrained(directory / "backbone")

    def _load_parts(self, directory: Path) -> None:
        self.attach(load_backbone(directory / "backbone"))
        self._build_index()
