"""Scores through a reconstruction, taken apart by an attack; purify, then detect."""

import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.attacks import RandomTarget, ReconstructionScore, attack, purified, reconstruction
from diffad.baselines.pixel_nn import PixelNN

SHAPE = (1, 4, 4)
MEAN = 0.5
LABELS = [0, 1, 0, 1]
SIGNS = np.where(np.array(LABELS) == 0, 1.0, -1.0)


class Shrink:
    """A denoiser that halves the distance to grey, and rounds: its exact gradient is zero."""

    def __init__(self, levels: int | None = None) -> None:
        self.levels = levels

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        shrunk = MEAN + (noisy - MEAN) / 2
        return shrunk if self.levels is None else (shrunk * self.levels).round() / self.levels


def images() -> Tensor:
    return 0.3 + 0.4 * torch.rand(len(LABELS), *SHAPE, generator=torch.Generator().manual_seed(1))


def distance(images: Tensor) -> Tensor:
    return torch.linalg.vector_norm((images - MEAN).flatten(1), dim=1)


def pair(reference: Tensor, reconstruction: Tensor) -> Tensor:
    return distance(reference - reconstruction + MEAN)


def build(**changes) -> ReconstructionScore:
    noise = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2))
    return ReconstructionScore(pair, Shrink().reconstruct, 0.1, noise, **changes)


def test_the_score_is_the_mean_over_the_draws_of_what_the_pair_score_says():
    score = build()
    singles = [pair(images(), MEAN + (images() + 0.1 * e - MEAN) / 2) for e in score.noise]
    torch.testing.assert_close(score(images()), torch.stack(singles).mean(0))
    torch.testing.assert_close(score(images(), score.noise[1:2]), singles[1])


@pytest.mark.parametrize(
    ("count", "calls"), [(1, [7]), (60, [240, 180]), (100, [200] * 3 + [100]), (300, [300] * 7)]
)
def test_draws_share_a_call_as_far_as_its_values_go(count, calls, monkeypatch):
    """Several draws at once change neither the mean nor its gradient, and keep each draw with its own image."""
    monkeypatch.setattr(reconstruction, "_VALUES_A_CALL", 256 * 16)
    generator = torch.Generator().manual_seed(3)
    clean = torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64)
    draws = torch.randn(7, *SHAPE, generator=generator, dtype=torch.float64)
    seen: list[int] = []

    def keep(noisy: Tensor, sigma: float) -> Tensor:
        seen.append(len(noisy))
        return MEAN + (noisy - MEAN) ** 2

    images = clean.clone().requires_grad_()
    found = reconstruction.mean_over_draws(pair, keep, images, 0.1, draws)
    (gradient,) = torch.autograd.grad(found.sum(), images)
    assert seen == calls
    one = clean.clone().requires_grad_()
    expected = torch.stack([pair(one, keep(one + 0.1 * e, 0.1)) for e in draws]).mean(0)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), one)[0])


def test_a_mean_over_no_draws_is_refused():
    with pytest.raises(InputError, match="got none"):
        build().score(images(), torch.empty(0, *SHAPE))


def test_a_surrogate_replaces_one_part():
    twice = build(
        pairs={"twice": lambda x, r: 2 * pair(x, r)}, processes={"none": lambda noisy, sigma: noisy}
    )
    offered = twice.surrogates()
    torch.testing.assert_close(offered["twice"](images()), 2 * twice(images()))
    flat = torch.stack([(0.1 * e).norm() for e in twice.noise]).mean().expand(len(LABELS))
    torch.testing.assert_close(offered["none"](images()), flat)


def test_purify_then_detect_sees_the_clipped_reconstruction():
    score = purified(distance, Shrink(), 2.0, SHAPE, draws=2)
    expected = [distance((MEAN + (images() + 2.0 * e - MEAN) / 2).clamp(0, 1)) for e in score.noise]
    torch.testing.assert_close(score(images()), torch.stack(expected).mean(0))
    unclipped = purified(distance, Shrink(), 2.0, SHAPE, draws=2, clip=False)
    assert (unclipped(images()) > score(images())).all()


def test_a_detector_behind_a_purifier_keeps_its_surrogates():
    detector = PixelNN().fit(torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(3)))
    score = purified(detector, Shrink(), 0.2, SHAPE)
    assert set(score.surrogates()) == {"soft_nn", "mean_image", "bpda"}
    seen = (MEAN + (images() + 0.2 * score.noise[0] - MEAN) / 2).clamp(0, 1)
    soft = score.surrogates()["soft_nn"](images(), score.noise[:1])
    torch.testing.assert_close(soft, detector.surrogates()["soft_nn"](seen))


@pytest.mark.parametrize("noise", ["stored", "fresh"])
def test_bpda_attacks_a_purifier_without_a_gradient_and_is_judged_by_the_purifier(noise):
    score = purified(distance, Shrink(levels=50), 0.05, SHAPE, draws=4)
    target = score if noise == "stored" else RandomTarget(score, draws=50, select_draws=50)
    shared = {"norm": "linf", "eps": 0.1, "steps": 20, "eot": 4}
    found = attack(target, images(), LABELS, objective="bpda", **shared)
    assert found.info["objective"] == "bpda"
    # the exact gradient of a rounded reconstruction is zero: the clean image is all that it finds
    blind = attack(target, images(), LABELS, **shared)
    np.testing.assert_array_equal(blind.scores, blind.clean_scores)
    assert blind.info["zero_gradient_share"] == 1.0
    # shrinking to half and a distance: each pixel moves the score, so nearly all of the best possible is reached
    away = images() + 0.1 * torch.from_numpy(SIGNS).float().view(-1, 1, 1, 1) * (images() - MEAN).sign()
    closed = torch.where((images() - MEAN).abs() < 0.1, torch.tensor(MEAN), away)
    best = torch.where(torch.tensor(LABELS).view(-1, 1, 1, 1) == 1, closed, away)
    known = np.asarray(RandomTarget(score, draws=50).scores(best, range(4), "evaluate"))
    if noise == "fresh":
        gain = SIGNS * (found.scores - found.clean_scores)
        assert (gain >= 0.8 * SIGNS * (known - found.clean_scores)).all()
    assert (SIGNS * found.scores > SIGNS * found.clean_scores).all()


def test_impossible_parts_are_refused():
    with pytest.raises(InputError, match="draws: got 0"):
        purified(distance, Shrink(), 0.2, SHAPE, draws=0)
    with pytest.raises(InputError, match="needs a detector"):
        purified(distance, distance, 0.2, SHAPE)
