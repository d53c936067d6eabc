"""What follows an attack: checks that say what they looked at, and evidence that nothing was chosen by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from certify.checks import InputError
from diffad.attack_evaluation import AttackOptions, attack_detector, conditions_of, victim_of
from diffad.attack_followup import check_reached, gather_evidence
from diffad.attacks.store import AttackStore
from diffad.baselines.pixel_nn import PixelNN
from diffad.data import load_data
from diffad.detector import Detector
from diffad.plan import Plan, smooth

PLAN = Plan(smoothing="input", sigma=0.25, radii=(0.1, 0.3), n=100, batch_size=50)
OPTIONS = AttackOptions("l2", (0.3, 0.0, 0.1), steps=4, eot=4)


class Unproven(Detector):
    """A score without a proven constant: no certificate without noise, so no evidence either."""

    name = "unproven"

    def _fit(self, train, seed):
        pass

    def _score(self, images, noise):
        return images.flatten(1).square().sum(1)


@pytest.fixture(scope="module")
def split():
    return load_data("digits", normal_class="8", resolution=8, limit=3)


@pytest.fixture(scope="module")
def detector(split):
    return PixelNN().fit(split.train.images)


def test_radii_are_attacked_in_order_and_rows_name_the_attack(detector, split) -> None:
    options = replace(OPTIONS, objective=None)
    reached = attack_detector(detector, split, replace(PLAN, smoothing="none", sigma=None), options)
    assert [one.found.eps for one in reached] == [0.1, 0.3]
    assert all(one.seconds > 0 for one in reached)
    rows = conditions_of(detector, split, replace(PLAN, smoothing="none", sigma=None), options, reached)
    assert [(c.condition, c.radius, c.method) for c in rows] == [
        ("clean", 0.0, ""), ("attack", 0.1, "pgd"), ("attack", 0.3, "pgd"),
    ]  # fmt: skip
    assert replace(options, objective="soft").name == "pgd on soft"


def test_the_evidence_is_fresh_and_about_the_attacked_images(detector, split, tmp_path) -> None:
    reached = attack_detector(detector, split, PLAN, OPTIONS)
    store = AttackStore(tmp_path, {"detector": detector.fingerprint()})
    found = gather_evidence(detector, split, PLAN, reached, store=store)
    assert [one.draws.shape for one in found] == [(6, 100)] * 2
    assert torch.equal(found[1].images, reached[1].found.images)
    evaluated = smooth(detector, PLAN).noisy_scores(found[1].images, range(6), "evaluate")
    assert not np.isin(found[1].draws, evaluated).any()  # draws of its own
    assert (np.diff(found[1].draws) >= 0).all()
    fresh = found[1].interval(0.001)
    old = replace(found[1], draws=np.sort(evaluated, axis=1)).interval(0.001)  # of the same images
    assert ((fresh.lower <= old.upper) & (old.lower <= fresh.upper)).all()
    again = gather_evidence(detector, split, PLAN, reached, store=store)
    np.testing.assert_array_equal(again[1].draws, found[1].draws)
    alone = gather_evidence(detector, split, PLAN, reached)
    np.testing.assert_array_equal(alone[1].draws, found[1].draws)


@pytest.mark.parametrize("way", ["none", ""])
def test_a_score_without_noise_has_its_enclosure(way, detector, split) -> None:
    plan = replace(PLAN, smoothing=way, sigma=None)
    reached = attack_detector(detector, split, plan, OPTIONS)
    for one, kept in zip(reached, gather_evidence(detector, split, plan, reached), strict=True):
        assert (kept.draws, kept.percentile) == (None, None)
        np.testing.assert_array_equal(kept.enclosure, detector.score_interval(one.found.images))
        ends = kept.interval(0.001)
        np.testing.assert_allclose(one.found.scores, (ends.lower + ends.upper) / 2, rtol=1e-5)


def test_without_a_proven_constant_there_is_nothing_to_judge(split) -> None:
    unproven, plan = Unproven().fit(split.train.images), replace(PLAN, smoothing="", sigma=None)
    reached = attack_detector(unproven, split, plan, OPTIONS)
    for one, kept in zip(reached, gather_evidence(unproven, split, plan, reached), strict=True):
        assert torch.equal(kept.images, one.found.images)
        assert not kept.judges
        with pytest.raises(InputError, match="images alone"):
            kept.interval(0.001)


def test_checks_look_at_every_radius_and_repeat_only_what_depends_on_it(detector, split) -> None:
    plan = replace(PLAN, smoothing="none", sigma=None)
    reached = attack_detector(detector, split, plan, OPTIONS)
    first, second = check_reached(detector, split, plan, OPTIONS, reached, "small")
    assert [one.name for one in first] == [one.name for one in second]
    shared = {one.name for one in first} & {
        other.name for one, other in zip(first, second, strict=True) if one is other
    }
    assert "floor" in shared
    assert "eps_sweep" not in shared
    with pytest.raises(InputError, match="mandatory, small, full"):
        check_reached(detector, split, plan, OPTIONS, reached, "none")


def test_a_plain_score_is_not_denoised(detector) -> None:
    assert victim_of(detector, replace(PLAN, smoothing="", sigma=None)) is detector
    with pytest.raises(InputError, match="without noise"):
        victim_of(detector, replace(PLAN, smoothing="", sigma=None), purifier=detector)


def test_the_floor_is_checked_with_the_references_of_the_attack(detector, split) -> None:
    """The lowest scores are those of the training images: an attack that is repeated without them ends above."""
    plan = replace(PLAN, smoothing="", sigma=None)
    options = AttackOptions("linf", (0.02,), method="ensemble", steps=2)
    reached = attack_detector(detector, split, plan, options)
    (outcomes,) = check_reached(detector, split, plan, options, reached, "small")
    (floor,) = [outcome for outcome in outcomes if outcome.name == "floor"]
    assert floor.passed, floor.detail
