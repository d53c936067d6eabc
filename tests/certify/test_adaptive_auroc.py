from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from certify.adaptive_auroc import AdaptiveBounds, adaptive_bounds
from certify.certificate import certify_scores
from certify.checks import InputError
from certify.metrics import auroc
from certify.pool import DrawPool
from certify.sequential_ranks import sequential_ranks

SIGMA, ALPHA, N = 1.0, 0.001, 4000
OPTIONS = {"sigma": SIGMA, "max_samples": N, "alpha_per_image": ALPHA / 60}


class Drawn:
    """Draws that lie ready; records how far each image was drawn."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.asked = scores, [0] * len(scores)

    def extend(self, targets: Mapping[int, int]) -> None:
        for row, n in targets.items():
            self.asked[row] = max(self.asked[row], n)

    def draws(self, row: int) -> np.ndarray:
        return self.scores[row, : self.asked[row]]


def population(seed: int = 0, images: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Anomalies around 3, normals around 1.5, noise of deviation 0.5."""
    rng = np.random.default_rng(seed)
    centres = np.concatenate([rng.normal(3.0, 0.6, images), rng.normal(1.5, 0.5, images)])
    return centres[:, None] + 0.5 * rng.standard_normal((2 * images, N)), np.repeat([1, 0], images)


@pytest.mark.parametrize("lipschitz", [0.0, 1.0])
def test_it_saves_draws_and_keeps_the_bound(lipschitz: float) -> None:
    scores, labels = population()
    result = adaptive_bounds(Drawn(scores), labels, radii=[0.1], lipschitz=lipschitz, **OPTIONS)
    fixed = certify_scores(scores, SIGMA, [0.1], ALPHA / 60, lipschitz)
    assert auroc(result.bounds, labels) == pytest.approx(auroc(fixed, labels), abs=0.004)
    assert result.saving > 0.4
    assert result.undecided.shape == (1, 1)
    assert float(result.undecided[0, 0]) <= 0.001
    assert result.alpha_per_image == ALPHA / 60


def by_definition(scores: np.ndarray, label: int, result: AdaptiveBounds, row: int, radius: float) -> float:
    """The best bound of one image over the looks it reached, by its ranks."""
    lower, upper = sequential_ranks(result.looks, 0.5, radius / SIGMA, result.alpha_per_image)
    found = []
    for n, low, high in zip(result.looks, lower, upper, strict=True):
        ordered = np.sort(scores[row, :n])
        if n <= result.samples[row] and label == 1 and low > 0:
            found.append(ordered[low - 1] - radius)
        if n <= result.samples[row] and label == 0 and high <= n:
            found.append(ordered[high - 1] + radius)
    return (max(found) if label == 1 else min(found)) if found else (-np.inf if label == 1 else np.inf)


def test_bounds_are_the_best_of_the_looks_reached() -> None:
    scores, labels = population(images=8)
    pool = Drawn(scores)
    result = adaptive_bounds(pool, labels, radii=[0.1, 0.3], sides=("both", "in"), lipschitz=1.0, **OPTIONS)
    assert result.samples.tolist() == pool.asked
    assert set(result.samples.tolist()) <= set(result.looks)
    for row, label in enumerate(labels):
        for position, radius in enumerate((0.1, 0.3)):
            ends = result.bounds.lower if label == 1 else result.bounds.upper
            expected = by_definition(scores, label, result, row, radius)
            assert ends[position, row] == pytest.approx(expected, abs=1e-12)
        ends = result.unattacked.lower if label == 1 else result.unattacked.upper
        assert ends[row] == pytest.approx(by_definition(scores, label, result, row, 0.0), abs=1e-12)
    other = np.where(labels == 1, result.bounds.upper, -result.bounds.lower)
    assert (other == np.inf).all()


def test_images_out_of_reach_stop_first() -> None:
    scores, labels = population(images=6)
    scores[0] += 20.0  # beats every normal at once
    scores[1] -= 20.0  # beats none
    result = adaptive_bounds(Drawn(scores), labels, radii=[0.1], **OPTIONS)
    assert max(result.samples[0], result.samples[1]) <= 100 < result.samples[2:6].max()
    assert result.bounds.lower[0, 0] > 20.0


def test_the_level_holds_although_stopping_looks_at_all_draws() -> None:
    """Linear scores, whose worst case is known: some bound is wrong in at most a share alpha of the runs."""
    rng, runs, alpha, n = np.random.default_rng(2), 600, 0.3, 300
    labels, centres = np.array([1, 1, 0, 0]), np.array([0.25, 0.3, 0.0, 0.1])
    wrong = 0
    for _ in range(runs):
        scores = centres[:, None] + rng.standard_normal((4, n))
        result = adaptive_bounds(
            Drawn(scores),
            labels,
            sigma=1.0,
            radii=[0.2],
            max_samples=n,
            alpha_per_image=alpha / 4,
            multiple=10,
            looks=8,
        )
        wrong += bool((result.bounds.lower[0, :2] > centres[:2] - 0.2).any()) or bool(
            (result.bounds.upper[0, 2:] < centres[2:] + 0.2).any()
        )
    assert 0.02 < wrong / runs <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)


def test_a_certified_value_is_no_more_than_the_true_worst_case() -> None:
    scores, labels = population(images=10)
    centres = np.median(scores, axis=1)
    for side, shifts in (
        ("both", (0.2, 0.2)),
        ("in", (0.0, 0.2)),
        ("out", (0.2, 0.0)),
        ("clean", (0.0, 0.0)),
    ):
        result = adaptive_bounds(Drawn(scores), labels, radii=[0.2], sides=(side,), lipschitz=1.0, **OPTIONS)
        value = auroc(result.bounds, labels, side, result.unattacked)
        attacked = np.where(labels == 1, centres - shifts[0], centres + shifts[1])
        truth = (attacked[labels == 1, None] > attacked[labels == 0]).mean()
        assert truth - 0.2 < float(np.squeeze(value)) <= truth


def test_every_cell_is_served() -> None:
    scores, labels = population(images=10)
    single = {
        side: adaptive_bounds(Drawn(scores), labels, radii=[0.2], sides=(side,), **OPTIONS)
        for side in ("in", "out", "both")
    }
    joint = adaptive_bounds(Drawn(scores), labels, radii=[0.05, 0.2], sides=("in", "out", "both"), **OPTIONS)
    assert joint.undecided.shape == (2, 3)
    assert (joint.undecided <= 0.001).all()
    for side, result in single.items():
        alone = auroc(result.bounds, labels, side, result.unattacked)
        together = auroc(joint.bounds, labels, side, joint.unattacked)
        assert float(np.squeeze(alone)) == pytest.approx(together[1], abs=0.011)
        assert together[0] >= together[1]


def test_ties_are_kept_and_count_one_half() -> None:
    """A score on atoms: equal ends are worth half a pair, so such a pair is not given up."""
    scores = np.ones((4, N))
    labels = np.array([1, 1, 0, 0])
    result = adaptive_bounds(Drawn(scores), labels, radii=[0.1], **OPTIONS)
    assert auroc(result.bounds, labels).tolist() == [0.5]
    assert result.undecided.tolist() == [[1.0]]


def test_nan_counts_against_an_image_on_both_sides() -> None:
    scores = np.concatenate([np.full((1, N), 5.0), np.full((1, N), 1.0)])
    labels = np.array([1, 0])
    assert auroc(adaptive_bounds(Drawn(scores), labels, radii=[0.1], **OPTIONS).bounds, labels)[0] == 1.0
    for row in (0, 1):
        broken = scores.copy()
        broken[row, ::2] = np.nan
        result = adaptive_bounds(Drawn(broken), labels, radii=[0.1], **OPTIONS)
        assert auroc(result.bounds, labels)[0] == 0.0


def test_a_tolerance_stops_earlier_and_says_what_it_left() -> None:
    scores, labels = population()
    strict = adaptive_bounds(Drawn(scores), labels, radii=[0.1], tolerance=0.0, **OPTIONS)
    loose = adaptive_bounds(Drawn(scores), labels, radii=[0.1], tolerance=0.05, **OPTIONS)
    assert strict.undecided.tolist() == [[0.0]]
    assert 0.0 < float(loose.undecided[0, 0]) <= 0.05
    assert loose.saving > strict.saving
    lost = float(np.squeeze(auroc(strict.bounds, labels) - auroc(loose.bounds, labels)))
    assert 0.0 <= lost <= float(loose.undecided[0, 0])


def test_a_percentile_away_from_the_median_covers_its_quantile() -> None:
    scores, labels = population(images=5)
    result = adaptive_bounds(Drawn(scores), labels, radii=[0.3], percentile=0.8, tolerance=0.0, **OPTIONS)
    truth = np.median(scores, axis=1) + 0.5 * ndtri(ndtr(ndtri(0.8) + np.where(labels == 1, -0.3, 0.3)))
    assert (result.bounds.lower[0, labels == 1] <= truth[labels == 1]).all()
    assert (result.bounds.upper[0, labels == 0] >= truth[labels == 0]).all()


def last_pixel(clean: Tensor, noisy: Tensor) -> Tensor:
    return noisy[:, 0, -1, -1]


def test_a_pool_gives_the_same_bounds_whatever_its_batches() -> None:
    images = torch.linspace(0.05, 0.95, 8).reshape(8, 1, 1, 1).expand(8, 1, 2, 2).contiguous()
    labels = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    results = [
        adaptive_bounds(
            DrawPool(last_pixel, images, range(8), sigma=0.25, seed=3, purpose="certify", batch_size=batch),
            labels,
            sigma=0.25,
            radii=[0.05],
            max_samples=1000,
            alpha_per_image=0.0001,
        )
        for batch in (50, 250)
    ]
    assert np.array_equal(results[0].bounds.lower, results[1].bounds.lower)
    assert np.array_equal(results[0].bounds.upper, results[1].bounds.upper)
    assert results[0].samples.tolist() == results[1].samples.tolist()
    assert all(look % 50 == 0 for look in results[0].looks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radii": [-0.1]}, "radii: got"),
        ({"alpha_per_image": 0.5}, "alpha: got"),
        ({"sides": ()}, "sides: got none"),
        ({"tolerance": 1.0}, "tolerance: got"),
        ({"lipschitz": float("inf")}, "lipschitz: got"),
        ({"max_samples": 10}, "need at least"),
        ({"radii": [9.0]}, "need at least"),
    ],
)
def test_what_cannot_be_bounded_is_refused(arguments: dict[str, object], message: str) -> None:
    scores, labels = population(images=2)
    with pytest.raises(InputError, match=message):
        adaptive_bounds(Drawn(scores), labels, **(OPTIONS | {"radii": [0.1]} | arguments))


def test_several_scores_are_refused() -> None:
    scores, labels = population(images=2)
    with pytest.raises(InputError, match="one score makes an AUROC"):
        adaptive_bounds(Drawn(scores[..., None]), labels, radii=[0.1], **OPTIONS)
