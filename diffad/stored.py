"""Scores and bounds from the draws that a run has kept, without detector or images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from certify.adaptive_auroc import adaptive_bounds
from certify.certificate import certify_scores
from certify.checks import InputError
from certify.store import ScoreStore
from certify.types import FloatArray
from diffad.conditions import Condition, TestedImages
from diffad.drawn import clean_estimates
from diffad.evaluation import ADAPTIVE_SIDES, LOOK_MULTIPLE
from diffad.plan import Plan

Ends = tuple[FloatArray, FloatArray]  # lower and upper ends (images,)


def stored_draws(store: ScoreStore, indices: Sequence[int], n: int) -> FloatArray:
    """Return the first n draws (images, n) of these images.

    Raises:
        InputError: if some are missing.
    """
    source = StoredDraws(store, indices)
    source.extend(dict.fromkeys(range(len(indices)), n))
    return np.stack([source.draws(row) for row in range(len(indices))])


class StoredDraws:
    """The draws of a store as a source that cannot draw: what adaptive sampling asks for must be there."""

    def __init__(self, store: ScoreStore, indices: Sequence[int]) -> None:
        digests = store.digests()
        self.folder, self.indices = store.folder, list(indices)
        self._kept = [store.get(index, digests[index]) if index in digests else None for index in indices]
        self._asked = [0] * len(self._kept)

    def extend(self, targets: Mapping[int, int], /) -> None:
        """Check that each row given has at least as many draws as given."""
        for row, n in targets.items():
            kept = self._kept[row]
            if kept is None or len(kept) < n:
                raise InputError(
                    f"{self.folder}: holds {0 if kept is None else len(kept)} draws of image {self.indices[row]}, "
                    f"its rows rest on {n}"
                )
            self._asked[row] = max(self._asked[row], n)

    def draws(self, row: int, /) -> FloatArray:
        """Return the draws (n,) asked for so far."""
        kept = self._kept[row]
        assert kept is not None
        return kept[: self._asked[row]]


@dataclass(frozen=True)
class Derivation:
    """The clean scores (images,) and the ends at each radius and level, derived from stored draws under one plan."""

    clean: FloatArray
    certified: Mapping[tuple[float, float], Ends]

    def of(self, condition: Condition) -> Ends:
        """Return the ends that belong to a condition."""
        if condition.condition == "clean":
            return self.clean, self.clean
        if condition.alpha is None or (condition.radius, condition.alpha) not in self.certified:
            raise InputError(f"{condition.name}: no draws of this plan give radius and level of these rows")
        return self.certified[condition.radius, condition.alpha]


def derive(store: ScoreStore, images: TestedImages, plan: Plan, lipschitz: float) -> Derivation:
    """Return all that a plan says of its test images, from their stored draws.

    Raises:
        InputError: if draws are missing.
    """
    return (_adaptively if plan.adaptive else _fixed)(store, images, plan, lipschitz)


def _fixed(store: ScoreStore, images: TestedImages, plan: Plan, lipschitz: float) -> Derivation:
    assert plan.sigma is not None
    draws = stored_draws(store, images.index.tolist(), plan.n)
    radii = sorted({0.0, *plan.radii})
    certified: dict[tuple[float, float], Ends] = {}
    for level in (plan.level(len(images)), plan.alpha_per_image):
        bounds = certify_scores(draws, plan.sigma, radii, level, lipschitz, plan.percentile)
        certified |= {
            (radius, level): (bounds.lower[row], bounds.upper[row]) for row, radius in enumerate(radii)
        }
    return Derivation(clean_estimates(draws, images.labels, plan.percentile), certified)


def _adaptively(store: ScoreStore, images: TestedImages, plan: Plan, lipschitz: float) -> Derivation:
    assert plan.sigma is not None
    source, level = StoredDraws(store, images.index.tolist()), plan.level(len(images))
    radii = [radius for radius in plan.radii if radius > 0]
    found = adaptive_bounds(
        source,
        images.labels,
        sigma=plan.sigma,
        radii=radii,
        max_samples=plan.n,
        alpha_per_image=level,
        sides=ADAPTIVE_SIDES,
        lipschitz=lipschitz,
        percentile=plan.percentile,
        tolerance=plan.tolerance,
        multiple=LOOK_MULTIPLE,
    )
    clean = [
        clean_estimates(
            source.draws(row)[None, : found.samples[row]], images.labels[row : row + 1], plan.percentile
        )[0]
        for row in range(len(images))
    ]
    certified = {(0.0, level): (found.unattacked.lower, found.unattacked.upper)}
    certified |= {
        (radius, level): (found.bounds.lower[row], found.bounds.upper[row])
        for row, radius in enumerate(radii)
    }
    return Derivation(np.array(clean), certified)
