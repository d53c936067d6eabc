"""The attack on the smoothed percentile, on scores whose worst case is known."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from certify import SmoothedDetector, SmoothedSum, auroc
from certify.checks import InputError
from certify.types import ScoreBounds
from diffad.attacks import attack_curve, attack_smoothed, soft_percentile
from diffad.attacks.smoothed import estimate, harrell_davis_weights

SHAPE = (1, 6, 6)
WEIGHTS = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
NORMAL = 0.5 + 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))
LABELS = [0, 0, 0, 1, 1, 1]
SIGNS = np.where(np.array(LABELS) == 0, 1.0, -1.0)
INDICES = [0, 5, 2, 9, 11, 7]


def linear(images: Tensor) -> Tensor:
    return (images * WEIGHTS.to(images)).sum((1, 2, 3))


class Shrinking:
    """A denoiser that shrinks to a mean image, and the L2 error against the reference (L = 1 in it)."""

    pair_lipschitz = 1.0

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        return NORMAL.to(noisy) + (noisy - NORMAL.to(noisy)) / (1 + sigma**2 / 0.02)

    def score_pair(self, reference: Tensor, reconstruction: Tensor) -> Tensor:
        return torch.linalg.vector_norm((reference - reconstruction).flatten(1), dim=1)

    def score(self, images: Tensor) -> Tensor:
        return torch.linalg.vector_norm((images - NORMAL.to(images)).flatten(1), dim=1)


def images() -> Tensor:
    noise = torch.randn(len(LABELS), *SHAPE, generator=torch.Generator().manual_seed(5))
    size = torch.where(torch.tensor(LABELS) == 0, 0.03, 0.08).view(-1, 1, 1, 1)
    return (NORMAL + size * noise).clamp(0.05, 0.95)


def smooth(detector: object, way: str, **changes: object) -> SmoothedDetector:
    arguments = {"sigma": 0.25, "n": 200, "batch_size": 100, "seed": 8} | changes
    return SmoothedDetector(detector, smoothing=way, **arguments)


def attack(smoothed: SmoothedDetector, **changes: object):
    arguments = {"norm": "l2", "eps": 0.1, "steps": 20, "eot": 8, "n_select": 50} | changes
    return attack_smoothed(smoothed, images(), LABELS, INDICES, **arguments)


@pytest.mark.parametrize("percentile", [0.3, 0.5])
def test_a_linear_score_reaches_its_exact_worst_case_and_stays_within_the_certificate(percentile):
    """h(x) = w.x + quantile of w.noise: the worst case in the ball is h(x) plus or minus r |w|."""
    radius, smoothed = 0.2, smooth(linear, "input", percentile=percentile)
    result = attack(smoothed, eps=radius)
    gain = radius * float(WEIGHTS.norm())
    np.testing.assert_allclose(SIGNS * (result.scores - result.clean_scores), gain, rtol=1e-4)
    certified = smoothed.bounds(images(), INDICES, [radius]).at(0)
    assert (result.bounds().lower >= certified.lower).all()
    assert (result.bounds().upper <= certified.upper).all()


def test_a_linear_score_in_linf_reaches_its_exact_worst_case():
    result = attack(smooth(linear, "input"), norm="linf", eps="4/255")
    gain = 4 / 255 * float(WEIGHTS.abs().sum())
    np.testing.assert_allclose(SIGNS * (result.scores - result.clean_scores), gain, rtol=1e-4)


def test_clean_and_attacked_scores_share_one_evaluation_key():
    smoothed = smooth(linear, "input")
    result = attack(smoothed)
    np.testing.assert_array_equal(result.clean_scores, smoothed.score(images(), INDICES))
    np.testing.assert_array_equal(result.scores, smoothed.score(result.images, INDICES))
    few = attack(smoothed, n_eval=50)
    np.testing.assert_array_equal(few.scores, estimate(smoothed, few.images, INDICES, 50, "evaluate"))
    assert few.info["n_eval"] == 50


@pytest.mark.parametrize("way", ["input", "denoise", "reference", "sure"])
def test_the_sandwich_holds_and_the_curve_is_monotone(way):
    smoothed, radii = smooth(Shrinking(), way, n=400), [0.0, 0.05, 0.2, 0.4]
    curve = attack_curve(
        partial(attack_smoothed, smoothed, images(), LABELS, INDICES, norm="l2", steps=20), radii
    )
    gains = np.stack([SIGNS * result.scores for result in curve])
    assert (np.diff(gains, axis=0) >= 0).all()
    np.testing.assert_array_equal(curve[0].scores, curve[0].clean_scores)
    certified, labels = smoothed.bounds(images(), INDICES, radii), np.array(LABELS)
    unattacked = {"certified": certified.at(0), "attacked": curve[0].bounds()}
    clean = auroc(ScoreBounds.exact(curve[0].clean_scores), labels, "clean")
    for row, result in enumerate(curve):
        bounds = result.bounds()
        assert (bounds.lower >= certified.at(row).lower).all()
        assert (bounds.upper <= certified.at(row).upper).all()
        for side in ("in", "out", "both"):
            low = auroc(certified.at(row), labels, side, unattacked=unattacked["certified"])
            middle = auroc(bounds, labels, side, unattacked=unattacked["attacked"])
            assert low <= middle <= clean
    # all these scores grow with the distance to the mean image, so the exact worst case is a radial step
    outwards = images() - NORMAL
    outwards /= outwards.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    for radius, gain in zip(radii[2:], gains[2:], strict=True):
        worst = images() + radius * torch.tensor(SIGNS).view(-1, 1, 1, 1).float() * outwards
        exact = SIGNS * smoothed.score(worst.clamp(0, 1), INDICES) - gains[0]
        assert (gain - gains[0] >= 0.9 * exact).all()


@pytest.mark.parametrize("way", ["input", "reference", "sure"])
def test_a_sum_over_noise_levels_is_attacked_as_a_whole_and_stays_within_its_bounds(way):
    options = {"weights": [1.0, 2.0], "n": 200, "batch_size": 100, "seed": 8}
    smoothed, radius = SmoothedSum.of(Shrinking(), [0.1, 0.25], way, **options), 0.2
    result = attack(smoothed, eps=radius)
    np.testing.assert_array_equal(result.clean_scores, smoothed.score(images(), INDICES))
    certified = smoothed.bounds(images(), INDICES, [radius]).at(0)
    assert (result.bounds().lower >= certified.lower).all()
    assert (result.bounds().upper <= certified.upper).all()
    # each level grows with the distance to the mean image, so the exact worst case is a radial step
    outwards = images() - NORMAL
    outwards /= outwards.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    worst = images() + radius * torch.tensor(SIGNS).view(-1, 1, 1, 1).float() * outwards
    exact = SIGNS * (smoothed.score(worst.clamp(0, 1), INDICES) - result.clean_scores)
    assert (SIGNS * (result.scores - result.clean_scores)).mean() >= 0.8 * exact.mean()
    assert (result.info["sigma"], result.info["gradient_evaluations"]) == ([0.1, 0.25], 2 * 20 * 8 * 6)


def test_the_gradient_flows_through_the_reference_and_the_reconstruction():
    """S(x, R(x + noise)) with R(z) = z is |noise|: an attack that saw one of the two alone would move it."""

    class Cancelling(Shrinking):
        def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
            return 1.0 * noisy

    result = attack(smooth(Cancelling(), "reference"), eps=0.3, steps=5)
    np.testing.assert_allclose(result.scores, result.clean_scores, rtol=1e-3)


def test_results_do_not_depend_on_the_batch_size_or_the_order():
    smoothed = smooth(Shrinking(), "reference")
    whole, split = attack(smoothed, batch_size=48), attack(smoothed, batch_size=8)
    torch.testing.assert_close(split.images, whole.images, rtol=0, atol=1e-5)
    np.testing.assert_allclose(split.scores, whole.scores, rtol=1e-5)
    order = [4, 0, 5, 1, 3, 2]
    shuffled = attack_smoothed(
        smoothed,
        images()[order],
        [LABELS[row] for row in order],
        [INDICES[row] for row in order],
        norm="l2",
        eps=0.1,
        steps=20,
        eot=8,
        n_select=50,
    )
    np.testing.assert_allclose(shuffled.scores, whole.scores[order], rtol=1e-5)


def test_restarts_are_candidates_and_seeds_matter():
    smoothed = smooth(Shrinking(), "reference")
    first, again, other = (attack(smoothed, seed=seed, restarts=2) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert first.info["gradient_evaluations"] == 2 * 20 * 8 * len(LABELS)


def test_the_draws_of_the_steps_are_fresh_and_disjoint_from_all_others(monkeypatch):
    from diffad.attacks import smoothed as module

    keys = []

    def recorded(seed: int, index: int, purpose: str, chunk: int, shape: object):
        keys.append((purpose, index, chunk))
        return gaussian_noise(seed, index, purpose, chunk, shape)

    gaussian_noise = module.gaussian_noise
    monkeypatch.setattr(module, "gaussian_noise", recorded)
    detector = smooth(Shrinking(), "reference")
    attack_curve(
        partial(attack_smoothed, detector, images(), LABELS, INDICES, norm="l2", steps=4, eot=2, restarts=2),
        [0.05, 0.1],
    )
    assert len(keys) == len(set(keys)) == 2 * 2 * 4 * len(LABELS)
    assert {purpose for purpose, _, _ in keys} == {"attack"}


def test_a_score_without_gradient_and_smoothing_without_noise_are_refused():
    with pytest.raises(InputError, match="no gradient"):
        attack(smooth(lambda x: linear(x.detach()), "input"))

    class Lipschitz(Shrinking):
        lipschitz = 1.0

        def score_interval(self, points: Tensor):
            return self.score(points).double().numpy(), self.score(points).double().numpy()

    with pytest.raises(InputError, match="pgd"):
        attack(SmoothedDetector(Lipschitz(), None, "none"))
    with pytest.raises(InputError, match="eot"):
        attack(smooth(linear, "input"), eot=0)


def test_harrell_davis_weights_are_a_distribution_that_narrows_to_the_percentile():
    for draws, percentile in ((1, 0.5), (7, 0.5), (16, 0.2), (400, 0.9)):
        weights = harrell_davis_weights(draws, percentile)
        assert weights.sum() == pytest.approx(1.0)
        assert (weights >= 0).all()
    np.testing.assert_allclose(harrell_davis_weights(9, 0.5), harrell_davis_weights(9, 0.5)[::-1])
    # three draws, median: the masses of Beta(2, 2), whose distribution is 3t^2 - 2t^3, on thirds
    np.testing.assert_allclose(harrell_davis_weights(3, 0.5), [7 / 27, 13 / 27, 7 / 27])
    draws = torch.randn(4, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.quantile(draws, 0.3, dim=1)
    torch.testing.assert_close(soft_percentile(draws, 0.3), expected, rtol=0, atol=0.02)


def test_other_methods_have_their_own_budget():
    smoothed = smooth(linear, "input", n=50, batch_size=50)
    options = {"n_select": 50, "n_eval": 50, "eot": 1, "steps": None}
    assert attack(smoothed, **options).info["steps"] == 40
    assert attack(smoothed, **options, method="fgsm").info["steps"] == 1
    assert attack(smoothed, **options, method="momentum").info["steps"] == 50
    assert attack(smoothed, **options | {"steps": 3}).info["steps"] == 3


def test_a_result_under_another_noise_or_other_draws_is_not_gone_on_from():
    before = attack(smooth(linear, "input"), steps=2)
    for other in ({"sigma": 0.5}, {"percentile": 0.3}, {"seed": 9}):
        with pytest.raises(InputError, match="another target"):
            attack(smooth(linear, "input", **other), steps=2, eps=0.2, previous=before)
    with pytest.raises(InputError, match="another target"):
        attack(smooth(linear, "input"), steps=2, eps=0.2, n_eval=20, previous=before)
