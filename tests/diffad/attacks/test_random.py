"""The attack on a detector that draws noise of its own, on scores whose expectation is known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from certify.noise import gaussian_noise
from diffad.attacks import ScoreTarget, attack
from diffad.attacks.objective import Rows
from diffad.attacks.random import RandomTarget, mean_score
from diffad.baselines.closed_form import ClosedForm
from diffad.baselines.pixel_nn import PixelNN

SHAPE = (1, 4, 4)
WEIGHTS = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
LABELS = [0, 1, 0, 1, 0]
SIGNS = np.where(np.array(LABELS) == 0, 1.0, -1.0)


class Noisy:
    """score(x) = mean over draws of w.x + (w.e) (1 + w.x): in expectation w.x, its gradient under one draw wrong."""

    is_random = True

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def score(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        assert noise is not None
        self.seen.append(noise.detach())
        linear = (images * WEIGHTS.to(images)).sum((1, 2, 3))
        pushed = (noise.mean(0) * WEIGHTS.to(images)).sum()
        return linear + pushed * (1.0 + linear)


def images(count: int = len(LABELS)) -> Tensor:
    return 0.3 + 0.4 * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(5))


def test_the_reported_score_is_the_mean_over_fresh_draws_under_its_own_key():
    detector = Noisy()
    target = RandomTarget(detector, draws=6, select_draws=3, seed=4, batch_size=2)
    scores = target.scores(images(), range(5), "evaluate")
    draws = torch.from_numpy(gaussian_noise(4, 0, "evaluate", 0, (6, *SHAPE))).float()
    expected = torch.stack([Noisy().score(images(), one[None]) for one in draws]).mean(0)
    np.testing.assert_allclose(scores, expected.double().numpy(), rtol=1e-5)
    np.testing.assert_array_equal(scores, target.scores(images(), range(10, 15), "evaluate"))
    assert not np.allclose(scores, target.scores(images(), range(5), "select"))


def test_attack_select_and_evaluation_draws_are_disjoint_and_steps_have_fresh_ones():
    detector = Noisy()
    target = RandomTarget(detector, draws=4, select_draws=4)
    attack(target, images(), LABELS, norm="linf", eps=0.05, steps=6, eot=4)
    shared = {tuple(draw.flatten().tolist()) for draw in detector.seen}
    evaluated = {tuple(draw.flatten().tolist()) for draw in gaussian_noise(0, 0, "evaluate", 0, (4, *SHAPE))}
    # clean and attacked are evaluated under one key, and each step has four draws of its own
    assert len(shared) == 4 + 4 + 6 * 4
    rounded = {tuple(np.round(draw, 5)) for draw in shared}
    assert {tuple(np.round(draw, 5)) for draw in evaluated} <= rounded


def test_draws_come_in_pairs_of_opposite_sign_and_follow_seed_and_step_alone():
    detector = Noisy()
    objective = RandomTarget(detector).objective(eot=5, seed=7, first_chunk=2, steps=10)
    rows = Rows((3, 8), (0, 1))
    first = objective(images(2), rows, 4)
    noise = torch.cat(detector.seen)
    assert noise.shape == (5, *SHAPE)
    torch.testing.assert_close(noise[3:], -noise[:2])
    half = torch.from_numpy(gaussian_noise(7, 0, "attack", 6, (3, *SHAPE))).float()
    torch.testing.assert_close(noise[:3], half)
    torch.testing.assert_close(objective(images(2)[:1], Rows((3,), (0,)), 4), first[:1])
    assert not torch.allclose(objective(images(2), rows, 5), first)
    assert objective.passes == 5


def test_a_linear_expectation_reaches_its_closed_form_worst_case():
    """The gradient of the mean is w (1 + w.mean e): with pairs of draws it is w, whatever is drawn."""
    target = RandomTarget(Noisy(), draws=8)
    result = attack(target, images(), LABELS, norm="linf", eps=0.1, steps=20, eot=4)
    worst = images() + 0.1 * torch.from_numpy(SIGNS).float().view(-1, 1, 1, 1) * WEIGHTS.sign()
    np.testing.assert_allclose(result.images.numpy(), worst.numpy(), atol=1e-6)
    assert result.info["objective"] == "expected_score"
    assert (result.info["draws"], result.info["eot"]) == (8, 4)


def test_more_draws_a_step_do_better_on_a_score_that_needs_them():
    """One draw at a time points anywhere: the push of w.e (1 + w.x) is far larger than w.x itself."""

    class Loud(Noisy):
        def score(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
            assert noise is not None
            linear = (images * WEIGHTS.to(images)).sum((1, 2, 3))
            along = (images[:, None] * noise[None]).sum((2, 3, 4)).mean(1)
            return linear + 8.0 * along

    target = RandomTarget(Loud(), draws=3000, select_draws=1000)
    reached = {
        eot: attack(target, images(), LABELS, norm="linf", eps=0.1, steps=9, eot=eot).scores
        for eot in (1, 40)
    }
    assert (SIGNS * reached[40] > SIGNS * reached[1]).all()


def test_the_score_of_the_closed_form_detector_is_the_mean_of_single_draws():
    detector = ClosedForm(sigma=0.5, draws=3).fit(images(20))
    noise = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    singles = torch.stack([detector.score(images(), one[None]) for one in noise])
    torch.testing.assert_close(mean_score(detector, images(), noise), singles.mean(0))
    assert not torch.allclose(mean_score(detector, images(), noise), detector.score(images(), noise))


def test_known_stored_draws_are_attacked_as_a_deterministic_score():
    """The fixed-randomness attack knows more, and never does worse on the score with those very draws."""
    detector = (
        ClosedForm(sigma=0.5, draws=3).fit(images(30)).surrogates()["mean_draws"]
    )  # smooth, unlike the median
    fixed = attack(detector, images(), LABELS, norm="l2", eps=0.4, steps=20)
    fresh = attack(RandomTarget(detector, draws=30), images(), LABELS, norm="l2", eps=0.4, steps=20, eot=4)
    own = ScoreTarget(detector.score).scores(fresh.images, range(5), "evaluate")
    assert (SIGNS * fixed.scores >= SIGNS * own - 1e-4).all()
    assert fixed.info["objective"] == "score"


def test_a_detector_without_noise_and_impossible_counts_are_refused():
    with pytest.raises(InputError, match="PixelNN is not random"):
        RandomTarget(PixelNN().fit(images(5)))
    with pytest.raises(InputError, match="draws: got 0"):
        RandomTarget(Noisy(), draws=0)
