"""A valid certificate from many draws beside an attack that few draws judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from certify import ScoreBounds, certify_scores, percentile_scores
from diffad.conditions import Subject, TestedImages, attack_condition, certified_conditions, clean_condition
from diffad.estimated import REMEDY, Judges, is_estimate
from diffad.evidence import Evidence, write_evidence
from diffad.leaderboard import build_leaderboard, read_records
from diffad.order import OrderError, check_order
from diffad.results import write_run

EACH, RADIUS, FEW, MANY = 30, 0.05, 50, 20_000
LABELS = np.repeat([0, 1], EACH)
TRUE = np.where(LABELS == 1, 0.3, 0.0)  # the medians of A(x) + N(0, 1), which the certificate tells apart
IMAGES = TestedImages(np.arange(2 * EACH), tuple(map(str, range(2 * EACH))), LABELS, ("x",) * (2 * EACH))
SUBJECT = Subject("digits:8", 16, "diffusion", "input", "", 1.0)


def draws(count: int, seed: int) -> np.ndarray:
    return TRUE[:, None] + np.random.default_rng(seed).standard_normal((2 * EACH, count))


@pytest.fixture(scope="module")
def certified():
    alpha, many = 0.001 / (2 * EACH), draws(MANY, 0)
    shared = {"n": MANY, "seed": 0}
    bounds = certify_scores(many, 1.0, [0.0, RADIUS], alpha)
    levels = {"alpha": alpha, "alpha_kind": "total", **shared}
    clean = clean_condition(SUBJECT, IMAGES, percentile_scores(many), **shared)
    return [clean, *certified_conditions(SUBJECT, IMAGES, bounds, [0.0, RADIUS], **levels)]


@pytest.fixture(scope="module")
def attacked():
    found = percentile_scores(draws(FEW, 1))
    ends = np.where(LABELS == 1, found - RADIUS, found + RADIUS)
    bounds = ScoreBounds(np.minimum(ends, found), np.maximum(ends, found))
    clean = clean_condition(SUBJECT, IMAGES, found, n=FEW, seed=0)
    return [
        clean,
        attack_condition(SUBJECT, IMAGES, bounds, norm="l2", eps=RADIUS, n=FEW, seed=0, method="pgd"),
    ]


@pytest.fixture
def runs(tmp_path, synthetic, certified, attacked):
    manifest = synthetic.manifest(detector="diffusion")
    return [write_run(tmp_path / "c", manifest, certified), write_run(tmp_path / "a", manifest, attacked)]


def keep(run, shift: float = 0.0) -> None:
    """Fresh draws of the attacked images, the medians of which lie `shift` beyond those of a perfect attack."""
    moved = draws(FEW, 2) + np.where(LABELS == 1, -1.0, 1.0)[:, None] * (RADIUS + shift)
    attack = next(one for one in run.conditions if one.condition == "attack")
    write_evidence(
        run.folder, attack, Evidence(IMAGES.index, torch.rand(60, 1, 4, 4), 0.5, np.sort(moved, axis=1))
    )


def test_without_kept_draws_the_error_names_both_causes(runs) -> None:
    with pytest.raises(
        OrderError, match=r"certificate or in the attack, or the draws are too few .* raise the --n"
    ):
        check_order(runs)


def test_the_noise_of_few_draws_explains_an_estimate_below_a_valid_certificate(runs) -> None:
    keep(runs[1])
    report = check_order(runs)
    assert report.explained > 0
    assert f"and in {report.explained} more within the noise of the attack's draws" in report.sentence
    (board,) = build_leaderboard(read_records([run.folder for run in runs])[0]).boards
    entry = next(one for one in board.entries if one.side == "both")
    assert entry.certified.value > entry.attacked.value
    assert entry.gap is None  # the attack says nothing


def test_scores_beyond_the_noise_are_an_error_still(runs) -> None:
    keep(runs[1], shift=2.0)
    with pytest.raises(
        OrderError, match=r"beyond the noise of its draws; a bug in the certificate or in the attack$"
    ):
        check_order(runs)


def test_a_deterministic_score_is_held_to_the_order_strictly(runs, tmp_path) -> None:
    keep(runs[1])
    exact = SUBJECT._replace(smoothing="none", sigma=None)
    plain = []
    for run in runs:
        own = [replace(one, subject=exact) for one in run.conditions]
        plain.append(write_run(tmp_path / f"plain-{run.folder.name}", run.manifest, own))
    keep(plain[1])
    with pytest.raises(OrderError) as error:
        check_order(plain)
    assert REMEDY not in str(error.value)


def test_the_best_case_bounds_unattacked_scores_by_the_certificate(runs, certified) -> None:
    keep(runs[1])
    attack = next(one for one in runs[1].conditions if one.condition == "attack")
    judges = Judges.of([Path("nowhere"), runs[1].folder], runs[1].conditions)
    few = attack.take(np.r_[0:5, 30:33])
    zero = certified[1].take(few.images.index).bounds
    reached, calm = judges.best_case(few, zero)
    anomalous = few.images.labels == 1
    assert (reached.lower[anomalous] > TRUE[30] - RADIUS).all()
    assert (reached.upper[~anomalous] < RADIUS).all()
    assert np.array_equal(calm.lower, np.where(anomalous, zero.upper, zero.lower))
    assert Judges.of([Path("nowhere")], runs[1].conditions).best_case(attack, None) is None


def test_only_scores_under_noise_are_estimates(attacked) -> None:
    assert all(is_estimate(one) for one in attacked)
    assert not is_estimate(replace(attacked[0], subject=SUBJECT._replace(smoothing="none")))
    assert not is_estimate(replace(attacked[0], n=0))
