"""What the checks look at: a part of the images, the settings of the attack, its estimates by fewer draws."""

from __future__ import annotations

import broken
import numpy as np
import pytest
import torch

from certify import SmoothedDetector
from diffad.attacks import Material, attack
from diffad.attacks.checks.case import FULL, SMALL, Case
from diffad.attacks.smoothed import SmoothedTarget


def many() -> tuple[torch.Tensor, torch.Tensor]:
    """30 images, 20 normal and 10 anomalous ones mixed."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand(30, *broken.SHAPE, generator=generator), (torch.arange(30) % 3 == 1).long()


def test_some_images_of_each_label_are_taken_with_their_names_and_scores():
    images, labels = many()
    found = attack(broken.Sound(), images, labels, norm="l2", eps=0.1, steps=3, indices=range(100, 130))
    case = Case.of(broken.Sound(), images, labels, found, SMALL, indices=range(100, 130))
    assert (int((case.labels == 0).sum()), int((case.labels == 1).sum())) == (8, 8)
    rows = np.array(case.names) - 100
    assert list(rows) == sorted(set(rows))
    assert rows[0] == 0  # evenly spread over each label, its first and its last image among them
    assert rows[-1] == 29
    torch.testing.assert_close(case.images, images[rows], rtol=0, atol=0)
    np.testing.assert_array_equal(case.result.scores, found.scores[rows])
    np.testing.assert_array_equal(case.labels, labels.numpy()[rows])
    assert len(Case.of(broken.Sound(), images, labels, found, FULL).labels) == 30


def test_the_attack_is_repeated_with_its_own_settings():
    images, labels = many()
    options = {"norm": "linf", "eps": "4/255", "restarts": 2, "steps": 4, "seed": 5}
    found = attack(broken.Sound(), images, labels, **options)
    case = Case.of(broken.Sound(), images, labels, found)
    np.testing.assert_array_equal(case.attack().scores, found.scores)
    assert case.attack() is case.attack()  # once
    assert case.attack(seed=6) is not case.attack()
    small = Case.of(
        broken.Sound(),
        images,
        labels,
        attack(broken.Sound(), images, labels, **{**options, "steps": 80}),
        SMALL,
    )
    assert (small.settings["steps"], small.settings["restarts"]) == (50, 2)


def test_a_preset_is_repeated_by_the_method_it_stands_for():
    images, labels = many()
    found = attack(broken.Sound(), images, labels, norm="l2", eps=0.1, method="pgd-100")
    case = Case.of(broken.Sound(), images, labels, found)
    assert {name: case.settings[name] for name in ("method", "steps", "restarts")} == {
        **{"method": "pgd_constant", "steps": 100, "restarts": 1}
    }
    assert case.attack(steps=2).info["attack"] == "pgd_constant"
    given = Case.of(
        broken.Sound(), images, labels, found, material=Material(sources={"a": broken.Sound().score})
    )
    assert list(given.settings["material"].sources) == ["a"]


def test_a_noisy_target_is_estimated_again_by_the_draws_of_the_budget():
    images, labels = broken.images(), broken.labels()
    smoothed = SmoothedDetector(broken.Sound(), 0.1, "input", n=1000, batch_size=250)
    found = attack(smoothed, images, labels, norm="l2", eps=0.1, steps=3, eot=4)
    case = Case.of(smoothed, images, labels, found, SMALL)
    assert isinstance(case.target, SmoothedTarget)
    assert case.target.draws == 200
    np.testing.assert_array_equal(
        case.result.clean_scores,
        SmoothedTarget(smoothed, n_eval=200).scores(images, range(len(images)), "evaluate"),
    )
    assert (case.gains(case.result) >= 0).all()
    assert Case.of(smoothed, images, labels, found, FULL).target.draws == 1000


def test_a_rival_wins_by_more_than_a_hundredth_of_the_gain():
    images, labels = broken.images(), broken.labels()
    found = attack(broken.Sound(), images, labels, norm="l2", eps=0.1, steps=5)
    case = Case.of(broken.Sound(), images, labels, found)
    own = case.gains(found)
    assert own == pytest.approx(0.1, rel=1e-4)
    assert case.wins(1.005 * own).sum() == 0
    assert case.wins(1.02 * own).sum() == len(images)
    assert case.wins(np.where(np.arange(len(images)) == 3, 1.02, 0.5) * own).nonzero()[0].tolist() == [3]


def test_aurocs_of_each_side_and_what_they_may_differ_by():
    images, labels = broken.images(), broken.labels()
    found = attack(broken.Sound(), images, labels, norm="l2", eps=0.2, steps=20)
    case = Case.of(broken.Sound(), images, labels, found)
    sides = case.aurocs(found)
    assert sides["both"] < sides["in"] <= 1.0
    assert case.tolerance == pytest.approx(1 / 36)
    assert case.whole_box == 4.0
