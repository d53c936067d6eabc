from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from certify.adaptive import certify_decisions, votes
from certify.certificate import certify_scores
from certify.checks import InputError
from certify.pool import DrawPool
from certify.sequential import default_looks, group_sequential_plan

OPTIONS = {"sigma": 0.5, "radius": 0.5, "max_samples": 2000, "alpha": 0.001}


class Drawn:
    """Draws that lie ready; records what was asked for."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores
        self.asked = [0] * len(scores)
        self.calls: list[dict[int, int]] = []

    def extend(self, targets: Mapping[int, int]) -> None:
        self.calls.append(dict(targets))
        for row, n in targets.items():
            self.asked[row] = max(self.asked[row], n)

    def draws(self, row: int) -> np.ndarray:
        return self.scores[row, : self.asked[row]]


def margins(rates: list[float], draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Scores above 0 at the given rates."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((len(rates), draws)) + ndtri(np.asarray(rates))[:, None]


def test_clear_images_stop_early_and_close_ones_draw_on() -> None:
    pool = Drawn(margins([0.9999, 0.3, 0.845]))
    result = certify_decisions(pool, 0.0, ["anomalous"] * 3, **OPTIONS)
    assert result.status == ("certified", "futility", "not_certified")
    assert result.certified.tolist() == [True, False, False]
    assert result.samples.tolist() == pool.asked
    assert result.samples[0] <= 100
    assert result.samples[1] <= 50
    assert result.samples[2] == 2000
    assert result.saving == pytest.approx(1.0 - result.samples.sum() / 6000)
    assert result.successes.tolist() == [int((pool.scores[i, : pool.asked[i]] > 0).sum()) for i in range(3)]


def test_an_image_beyond_the_budget_costs_nothing() -> None:
    pool = Drawn(margins([0.9999]))
    result = certify_decisions(pool, 0.0, ["anomalous"], **OPTIONS | {"max_samples": 39})
    assert result.status == ("budget",)
    assert result.samples.tolist() == [0]
    assert pool.calls == []


def test_both_decisions_mirror_each_other() -> None:
    scores = margins([0.9, 0.93, 0.5])
    one = certify_decisions(Drawn(scores), 0.0, ["anomalous"] * 3, **OPTIONS)
    other = certify_decisions(Drawn(-scores), 0.0, ["normal"] * 3, **OPTIONS)
    assert one.status == other.status
    assert one.samples.tolist() == other.samples.tolist()


@pytest.mark.parametrize("decision", ["anomalous", "normal"])
@pytest.mark.parametrize("percentile", [0.5, 0.8])
@pytest.mark.parametrize("lipschitz", [0.0, 0.3])
def test_one_look_gives_the_verdict_of_the_fixed_bounds(
    decision, percentile: float, lipschitz: float
) -> None:
    """Duality with `certify_scores`, thresholds at the draws themselves included."""
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((40, 200)).round(1) + rng.uniform(-2.5, 2.5, (40, 1)).round(1)
    scores[3, :30] = np.nan
    bounds = certify_scores(scores, 0.5, [0.3], 0.01, lipschitz, percentile)
    expected = bounds.lower[0] > 0.0 if decision == "anomalous" else bounds.upper[0] <= 0.0
    result = certify_decisions(
        Drawn(scores),
        0.0,
        [decision] * 40,
        sigma=0.5,
        radius=0.3,
        max_samples=200,
        alpha=0.01,
        lipschitz=lipschitz,
        percentile=percentile,
        looks=1,
        futility=0.0,
    )
    assert result.certified.tolist() == expected.tolist()
    assert 3 < expected.sum() < 36


def test_votes_need_the_margin_and_nan_is_none() -> None:
    draws = np.array([0.0, 0.1, 0.4, -0.4, np.nan, np.inf, -np.inf])
    assert votes(draws, 0.0, 0.0, "anomalous").tolist() == [False, True, True, False, False, True, False]
    assert votes(draws, 0.0, 0.0, "normal").tolist() == [True, False, False, True, False, False, True]
    assert votes(draws, 0.0, 0.2, "anomalous").tolist() == [False, False, True, False, False, True, False]
    assert votes(draws, 0.0, 0.4, "normal").tolist() == [False, False, False, False, False, False, True]
    with pytest.raises(InputError, match="one score decides"):
        votes(np.zeros((3, 2)), 0.0, 0.0, "normal")


def test_the_level_holds_over_all_looks() -> None:
    """Images exactly on the boundary of the null: the share certified is the plan's level, and not above alpha."""
    p0 = float(ndtr(1.0))
    alpha, images = 0.05, 3000
    options = OPTIONS | {"alpha": alpha, "max_samples": 400, "looks": 8}
    result = certify_decisions(
        Drawn(margins([p0] * images, draws=400)), 0.0, ["anomalous"] * images, **options
    )
    plan = group_sequential_plan(p0, alpha, default_looks(p0, alpha, 400, 8, multiple=50))
    share = result.certified.mean()
    assert share == pytest.approx(plan.power(p0), abs=4 * np.sqrt(alpha / images))
    assert plan.power(p0) <= alpha
    assert result.samples.mean() == pytest.approx(plan.expected_samples(p0), rel=0.05)


def first_pixel(clean: Tensor, noisy: Tensor) -> Tensor:
    return noisy[:, 0, 0, 0]


def test_a_pool_gives_the_same_decisions_whatever_its_batches() -> None:
    images = torch.linspace(0.1, 0.9, 6).reshape(6, 1, 1, 1).expand(6, 1, 2, 2).contiguous()
    results = []
    for batch_size in (50, 200):
        pool = DrawPool(
            first_pixel, images, range(6), sigma=0.25, seed=0, purpose="certify", batch_size=batch_size
        )
        results.append(
            certify_decisions(
                pool,
                0.5,
                ["normal"] * 3 + ["anomalous"] * 3,
                sigma=0.25,
                radius=0.2,
                max_samples=1000,
                alpha=0.001,
            )
        )
        assert pool.passes >= results[-1].samples.sum()
    assert results[0].status == results[1].status
    assert results[0].samples.tolist() == results[1].samples.tolist()
    assert results[0].successes.tolist() == results[1].successes.tolist()
    assert results[0].status[0] == results[0].status[5] == "certified"
    assert "certified" not in results[0].status[2:4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.5}, "alpha: got"),
        ({"radius": -0.1}, "radius: got"),
        ({"sigma": 0.0}, "sigma: got"),
        ({"lipschitz": -1.0}, "lipschitz: got"),
        ({"percentile": 1.0}, "percentile: got"),
        ({"max_samples": 0}, "max_samples 0"),
    ],
)
def test_what_cannot_be_tested_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        certify_decisions(Drawn(margins([0.9])), 0.0, ["normal"], **OPTIONS | arguments)


def test_a_threshold_must_be_finite_and_there_must_be_an_image() -> None:
    with pytest.raises(InputError, match="threshold: got nan"):
        certify_decisions(Drawn(margins([0.9])), float("nan"), ["normal"], **OPTIONS)
    with pytest.raises(InputError, match="0 decisions"):
        certify_decisions(Drawn(margins([0.9])), 0.0, [], **OPTIONS)
