"""Pseudo-anomalies: hard transforms of normal images, redrawn until they no longer pass for normal.

COBRA, Algorithm 1: at least two hard transforms in random order; accepted when the p-value under the normals is below
the level, else drawn again. The paper draws for ever; here a cap ends it, and the least likely draw is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from certify.checks import InputError, check_choice, check_images, check_probability
from diffad.cobra.filter import NormalityFilter
from diffad.data.transforms import HARD_TRANSFORMS, TRANSFORMS, apply_each
from diffad.data.transforms.base import Seeds, check_seeds
from diffad.training.batches import key

_CRAFT = 10  # a purpose, the first number of a key: those of diffad.training are 0 to 3


@dataclass(frozen=True, kw_only=True)
class Crafting:
    """How pseudo-anomalies are made."""

    transforms: tuple[str, ...] = tuple(HARD_TRANSFORMS)
    """Names of `diffad.data.transforms.TRANSFORMS` to choose from, evenly."""
    fewest: int = 2
    """Transforms of an image, at least; all different."""
    most: int = 3
    """Transforms of an image, at most. The paper says at least two and no more; three is ours."""
    level: float | None = 0.05
    """Accept p-values below this; None turns the filter off."""
    cap: int = 20
    """Draws of an image, at most."""
    same_on_retry: bool = False
    """Keep the transforms of the first draw and draw their parameters only."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name in self.transforms:
            check_choice(name, tuple(TRANSFORMS), "transforms")
        if len(set(self.transforms)) < len(self.transforms):
            raise InputError(f"transforms: got {', '.join(self.transforms)}; need each at most once")
        if not 1 <= self.fewest <= self.most <= len(self.transforms):
            raise InputError(
                f"fewest, most: got {self.fewest}, {self.most} of {len(self.transforms)} transforms; need "
                "1 <= fewest <= most <= their number"
            )
        if self.level is not None:
            check_probability(self.level, "level")
        if self.cap < 1:
            raise InputError(f"cap: got {self.cap}, need at least 1")

    @property
    def needs_pool(self) -> bool:
        """Whether a transform mixes in another image."""
        return any(TRANSFORMS[name].takes_partner for name in self.transforms)


STRATEGIES: dict[str, Crafting] = {
    "paper": Crafting(),
    "no_filter": Crafting(level=None),
    # what the released code does: one transform, set by the data set, and the filter off
    "released_rotation": Crafting(transforms=("rotation",), fewest=1, most=1, level=None),
    "released_cutpaste": Crafting(transforms=("cutpaste_scar",), fewest=1, most=1, level=None),
    # its filter where it is switched on: p < 0.99, five draws of one transform
    "released_filter": Crafting(fewest=1, most=1, level=0.99, cap=5, same_on_retry=True),
    # other works' pseudo-anomalies (Table 5): CutPaste (Li et al. 2021), CSI (Tack et al. 2020)
    "cutpaste": Crafting(transforms=("cutpaste", "cutpaste_scar"), fewest=1, most=1, level=None),
    "csi_rotation": Crafting(transforms=("rotation90",), fewest=1, most=1, level=None),
}


@dataclass(frozen=True, eq=False)
class Crafted:
    """Pseudo-anomalies of a batch, with how they came about.

    Attributes:
        images: (b, c, h, w) in [0, 1].
        p_values: (b,) under the normals; NaN with the filter off.
        tries: (b,) draws made.
        accepted: (b,) False where the cap was hit, and the image is the least likely of its draws.
        names: the transforms of each image, in order.
    """

    images: Float[Tensor, "b c h w"]
    p_values: Float[Tensor, " b"]
    tries: Int64[Tensor, " b"]
    accepted: Bool[Tensor, " b"]
    names: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Plan:
    """One draw of one image: transforms in order, and for each its seed and the place of its partner in the pool."""

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    partners: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PseudoAnomalies:
    """Crafts pseudo-anomalies; what becomes of an image depends on its seed and the pool alone.

    Attributes:
        crafting: how.
        normality: the filter; None where `crafting.level` is None.
    """

    crafting: Crafting
    normality: NormalityFilter | None = None

    def __post_init__(self) -> None:
        """Refuse a level without a filter, or below all p-values of the filter."""
        if self.crafting.level is None:
            return
        if self.normality is None:
            raise InputError(
                f"crafting: level {self.crafting.level} needs a filter; fit one (fit_filter), or set level None"
            )
        check_held_out(len(self.normality.mixture.held_out), self.crafting.level)

    @torch.no_grad()
    def craft(
        self,
        images: Float[Tensor, "b c h w"],
        *,
        seeds: Seeds,
        pool: Float[Tensor, "n c h w"] | None = None,
    ) -> Crafted:
        """Return a pseudo-anomaly of each image.

        Args:
            images: normal images in [0, 1].
            seeds: one whole number of at least 0 for each (`craft_seeds`).
            pool: normal images that mixup and cutmix take another image from; on any device.

        Raises:
            InputError: images, seeds or pool that cannot be used.
        """
        check_images(images)
        numbers = check_seeds(seeds, len(images))
        pool = self._check_pool(images, pool)
        count, device = len(images), images.device
        found = torch.empty_like(images)
        p_values = torch.full((count,), torch.nan, dtype=torch.float64, device=device)
        tries = torch.zeros(count, dtype=torch.int64, device=device)
        names: list[tuple[str, ...]] = [()] * count
        left = list(range(count))
        for attempt in range(1 if self.crafting.level is None else self.crafting.cap):
            plans = [self._plan(numbers[row], attempt, len(pool)) for row in left]
            rows = torch.tensor(left, device=device)
            drawn = _transform(images[rows], plans, pool)
            tries[rows] += 1
            likely = self._p_values(drawn)
            # NaN stands for no draw yet
            better = ~(likely >= p_values[rows])
            found[rows[better]], p_values[rows[better]] = drawn[better], likely[better]
            for row, plan, is_better in zip(left, plans, better.tolist(), strict=True):
                names[row] = plan.names if is_better else names[row]
            left = self._refused(p_values).nonzero()[:, 0].tolist()
            if not left:
                break
        return Crafted(found, p_values, tries, ~self._refused(p_values), tuple(names))

    def _check_pool(self, images: Tensor, pool: Tensor | None) -> Tensor:
        if not self.crafting.needs_pool:
            return images[:0]
        if pool is None or len(pool) == 0 or pool.shape[1:] != images.shape[1:]:
            shape = None if pool is None else tuple(pool.shape)
            raise InputError(
                f"pool: got {shape} for images {tuple(images.shape)}; mixup and cutmix need normal images of that size"
            )
        return pool

    def _p_values(self, images: Tensor) -> Tensor:
        if self.crafting.level is None or self.normality is None:
            return torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device)
        return self.normality.p_values(images).to(images.device)

    def _refused(self, p_values: Tensor) -> Tensor:
        if self.crafting.level is None:
            return torch.zeros_like(p_values, dtype=torch.bool)
        return p_values >= self.crafting.level

    def _plan(self, seed: int, attempt: int, pool: int) -> _Plan:
        """Draw transforms, their order, seeds and partners; a function of its arguments alone."""
        choices = self.crafting
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_CRAFT, attempt)))
        first = (
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_CRAFT,)))
            if choices.same_on_retry
            else rng
        )
        many = int(first.integers(choices.fewest, choices.most + 1))
        order = first.permutation(len(choices.transforms))[:many]
        return _Plan(
            tuple(choices.transforms[place] for place in order),
            tuple(rng.integers(2**62, size=many).tolist()),
            tuple(rng.integers(pool, size=many).tolist()) if pool else (0,) * many,
        )


def _transform(images: Tensor, plans: Sequence[_Plan], pool: Tensor) -> Tensor:
    """Apply each image's plan, step by step, all images of a step together."""
    result = images.clone()
    for step in range(max(len(plan.names) for plan in plans)):
        rows = [row for row, plan in enumerate(plans) if step < len(plan.names)]
        chosen = [plans[row] for row in rows]
        others = None
        if len(pool):
            places = torch.tensor([plan.partners[step] for plan in chosen], device=pool.device)
            others = pool[places].to(images)
        result[rows] = apply_each(
            [plan.names[step] for plan in chosen],
            result[rows],
            seeds=[plan.seeds[step] for plan in chosen],
            partners=others,
        )
    return result


def check_held_out(count: int, level: float) -> None:
    """Refuse so few held-out normals that no p-value lies below the level: all draws would go to the cap."""
    least = 1.0 / (count + 1)
    if not least < level:
        raise InputError(
            f"held_out: {count} held-out normals give p-values of at least {least:.3g}, none below the level {level}; "
            f"need at least {math.floor(1.0 / level)}: more images, a larger share held out, or a higher level"
        )


def craft_seeds(seed: int, numbers: Sequence[int]) -> list[int]:
    """Return the seeds of the images with these numbers: their places in the whole walk of a training."""
    return [key(seed, _CRAFT, number) for number in numbers]
