"""Largest distance of a patch to its nearest normal patch: a PatchCore in pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from certify.checks import InputError, check_choice
from certify.types import FloatArray, ScoreFunction
from diffad.attacks.summaries import MAP_SUMMARIES
from diffad.detector import Detector
from diffad.neighbours import (
    farthest,
    k_centre,
    largest_norm,
    nearest,
    pair_distance,
    random_choice,
    search_error,
)
from diffad.precision import one_thread
from diffad.rounding import contraction, enclose, gamma, norm_fault

SELECTIONS = ("random", "k_centre")
# Greedy k-centre chooses the bank from this many random patches for each one it keeps.
CANDIDATES_PER_PATCH = 4
# Coordinates of the patches embedded at once while searching: 64 MiB of float64.
_BLOCK = 1 << 23


class PatchNN(Detector):
    """Largest L2 distance of a patch of the image to its nearest patch in a bank of normal patches.

    L = 1: a patch is a restriction of the image, so two patches at one place differ by no more than the
    images do; an orthogonal projection of patches (mean removal, principal components) has norm 1; a distance
    to a point is 1-Lipschitz, and so are minima and maxima of such functions. The stored projection is shrunk
    by its rounding error, so its norm is at most 1 exactly. Whitening or an approximate search would have no
    such constant.

    Args:
        patch_size: side of the square patches, in pixels.
        stride: step between patches; the last row and column of patches always touch the border.
        bank_size: number of patches kept, all of them if the training images have no more.
        selection: `random`, or `k_centre` (greedy, from four times as many random patches; `bank_size` passes
            over these, so for banks of a few thousand).
        remove_mean: subtract from each patch its mean, channel by channel: blind to smooth shading.
        n_components: compare the projections of patches on so many principal components; None for pixels.
    """

    name = "patch_nn"
    lipschitz = 1.0
    map_lipschitz = 1.0  # a pixel is a mean of distances, each 1-Lipschitz
    bank: Tensor
    projection: Tensor

    def __init__(
        self,
        patch_size: int = 9,
        stride: int = 1,
        bank_size: int = 60_000,
        selection: Literal["random", "k_centre"] = "random",
        remove_mean: bool = False,
        n_components: int | None = None,
    ) -> None:
        super().__init__()
        numbers = {"patch_size": patch_size, "stride": stride, "bank_size": bank_size}
        for key, value in {**numbers, "n_components": n_components}.items():
            if value is not None and value < 1:
                raise InputError(f"patch_nn: got {key} = {value}, need at least 1")
        if remove_mean and patch_size == 1:
            raise InputError("patch_nn: got remove_mean with patch_size = 1, which leaves nothing to compare")
        self.patch_size, self.stride, self.bank_size = patch_size, stride, bank_size
        self.selection = check_choice(selection, SELECTIONS, "selection")
        self.remove_mean, self.n_components = remove_mean, n_components
        self.register_buffer("bank", torch.empty(0))
        self.register_buffer("projection", torch.empty(0, dtype=torch.float64))

    def _fit(self, train: Tensor, seed: int) -> None:
        table = self._table(train.device)
        count = len(train) * len(table)
        size = min(self.bank_size, count)
        greedy = self.selection == "k_centre"
        sample = random_choice(count, CANDIDATES_PER_PATCH * size if greedy else size, seed=seed)
        image, place = sample.to(train.device) // len(table), sample.to(train.device) % len(table)
        patches = train.float().flatten(1)[image[:, None], table[place]]
        self.projection = self._fit_projection(patches)
        embedded = self._embed(patches)
        if greedy:
            embedded = embedded[k_centre(embedded, size, seed=seed)]
        self.bank = embedded.float()

    def _fit_projection(self, patches: Tensor) -> Tensor:
        """Return the rows (m, d) to project patches on, spectral norm at most 1; empty for none."""
        channels = self._require_fitted()[0]
        dims = patches.shape[1]
        basis = torch.eye(dims, dtype=torch.float64, device=patches.device)
        if self.remove_mean:
            zero_mean = _helmert(dims // channels).to(basis)
            basis = torch.kron(torch.eye(channels).to(basis), zero_mean)
        if self.n_components is not None:
            if self.n_components > len(basis):
                raise InputError(
                    f"patch_nn: got n_components = {self.n_components}, patches have {len(basis)} dimensions"
                )
            with one_thread():  # the fingerprint then is the same whatever the number of threads
                covariance = torch.cov((patches.double() @ basis.T).T, correction=0).view(
                    len(basis), len(basis)
                )
                _, vectors = torch.linalg.eigh(covariance)
            basis = vectors.flip(1)[:, : self.n_components].T @ basis
        if not self.remove_mean and self.n_components is None:
            return basis[:0].flatten()
        return contraction(basis)

    def _unproven(self) -> str:
        return norm_fault({"projection": self.projection} if self.projection.numel() else {}, 1.0)

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        # the gradient holds the patch and its neighbour fixed, which they are almost everywhere
        patches, neighbours, _ = self._worst(images.detach())
        worst = images.flatten(1).gather(1, self._table(images.device)[patches])
        return pair_distance(self._embed(worst), self.bank[neighbours]).to(images.dtype)

    def score_interval(self, images: Float[Tensor, "b c h w"]) -> tuple[FloatArray, FloatArray]:
        """Return float64 bounds (b,) of the exact score for the stored bank and projection.

        The search errs by `search_error` on both sides (see `farthest`). A computed projection of a patch p
        is off by at most gamma(d) |V|_F |p|, where |V|_F^2 <= m for m rows of norm at most 1 and |p|^2 <= d.
        """
        self._check_input(images)
        _, neighbours, embedded = self._worst(images.detach())
        distances = pair_distance(embedded, self.bank[neighbours]).cpu().numpy()
        slack, projected = self._search_slack()
        return enclose(
            distances, embedded.shape[1], square_below=slack, square_above=slack, absolute=projected
        )

    def _search_slack(self) -> tuple[float, float]:
        """Return the error of a squared distance from the search, and that of an embedded patch from the projection."""
        rows, dims = self.bank.shape[1], self._table(self.bank.device).shape[1]
        slack = search_error(rows, math.sqrt(dims), largest_norm(self.bank))
        return slack, 2.0 * gamma(dims + 2) * math.sqrt(rows * dims) if self.projection.numel() else 0.0

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return summaries of all patches' distances in the place of the largest."""
        return {name: partial(self._summarise, summary=summary) for name, summary in MAP_SUMMARIES.items()}

    def _summarise(self, images: Tensor, summary: Callable[[Tensor], Tensor]) -> Tensor:
        embedded = self._embed(images.flatten(1)[:, self._table(images.device)])
        patches = embedded.flatten(0, 1)
        _, neighbours = nearest(patches.detach(), self.bank)
        distances = pair_distance(patches, self.bank[neighbours[:, 0]])
        return summary(distances.view(embedded.shape[:2])).to(images.dtype)

    def anomaly_map(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Return at each pixel the mean distance of the patches over it; 0 where a stride leaves a gap."""
        self._check_input(images)
        return self._average(self._distances(images)).to(images.dtype)

    def map_interval(self, images: Float[Tensor, "b c h w"]) -> tuple[FloatArray, FloatArray]:
        """Return float64 bounds (b, h, w) of the exact map: those of `score_interval` for each patch, averaged."""
        self._check_input(images)
        distances = self._distances(images)
        slack, projected = self._search_slack()
        ends = enclose(
            distances.cpu().numpy(),
            self.bank.shape[1],
            square_below=slack,
            square_above=slack,
            absolute=projected,
        )
        lower, upper = (self._average(torch.from_numpy(end).to(distances)).cpu().numpy() for end in ends)
        rounding = 4.0 * gamma(self.patch_size**2 + 4)  # of a mean of so many positive numbers
        return lower * (1.0 - rounding), upper * (1.0 + rounding)

    def _distances(self, images: Tensor) -> Tensor:
        """Return the distance of each patch to its nearest one in the bank, float64 (b, patches)."""
        with torch.no_grad():
            embedded = self._embed(images.flatten(1)[:, self._table(images.device)])
            distances, _ = nearest(embedded.flatten(0, 1), self.bank)
        return rearrange(distances, "(b p) 1 -> b p", b=len(images))

    def _average(self, distances: Tensor) -> Tensor:
        """Return at each pixel the mean over the patches that cover it, (b, h, w); 0 where none does."""
        _, height, width = self._require_fitted()
        pixels = self._table(distances.device)[
            :, : self.patch_size**2
        ].flatten()  # places in the first channel
        spread = repeat(distances, "b p -> b (p i)", i=self.patch_size**2)
        total = spread.new_zeros(len(distances), height * width).index_add_(1, pixels, spread)
        cover = torch.bincount(pixels, minlength=height * width).clamp(min=1)
        return rearrange(total / cover, "b (h w) -> b h w", h=height)

    def _worst(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return for each image the patch farthest from the bank, its neighbour, and that patch embedded."""
        table = self._table(images.device)
        bank = self.bank.double()
        parts = []
        with torch.no_grad():
            for chunk in torch.split(images.flatten(1), max(1, _BLOCK // table.numel())):
                embedded = self._embed(chunk[:, table])
                patches, neighbours = farthest(embedded, bank)
                parts.append(
                    (patches, neighbours, embedded[torch.arange(len(chunk), device=patches.device), patches])
                )
        patches, neighbours, worst = (torch.cat(part) for part in zip(*parts, strict=True))
        return patches, neighbours, worst

    def _embed(self, patches: Tensor) -> Tensor:
        """Return the projected patches in float64 (..., m); exact if there is no projection."""
        return patches.double() @ self.projection.T if self.projection.numel() else patches.double()

    def _table(self, device: torch.device) -> Int[Tensor, "patches dims"]:
        """Return for each patch the places of its pixels in the flattened image."""
        channels, height, width = self._require_fitted()
        if self.patch_size > min(height, width):
            raise InputError(
                f"patch_nn: got patch_size = {self.patch_size} for images {height} x {width}; need at most "
                f"{min(height, width)}"
            )
        places = torch.arange(channels * height * width, device=device).view(channels, height, width)
        windows = places.unfold(1, self.patch_size, 1).unfold(2, self.patch_size, 1)
        rows, columns = (_starts(side - self.patch_size, self.stride) for side in (height, width))
        return rearrange(windows[:, rows][:, :, columns], "c y x i j -> (y x) (c i j)")


def _starts(last: int, stride: int) -> list[int]:
    """Return 0, stride, 2 stride, ... and always `last`, so that no border goes unseen."""
    return sorted({*range(0, last + 1, stride), last})


def _helmert(size: int) -> Float[Tensor, "rows size"]:
    """Return size - 1 orthonormal rows, all orthogonal to the constant vector."""
    steps = torch.arange(1, size, dtype=torch.float64)
    rows = torch.tril(torch.ones(size - 1, size, dtype=torch.float64))
    rows[torch.arange(size - 1), torch.arange(1, size)] = -steps
    return rows / (steps * (steps + 1)).sqrt()[:, None]
