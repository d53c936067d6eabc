import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from certify.smoothing import SmoothedDetector
from diffad.attacks import ATTACKS, ENSEMBLES, Material, attack, attack_curve
from diffad.attacks.checks import run_checks
from diffad.attacks.methods import needs_of

LABELS = [0, 1, 0, 1, 0, 1]
SIGNS = np.array([1.0, -1.0] * 3)
MEMBERS = ENSEMBLES["ensemble"]


def rugged(images: Tensor) -> Tensor:
    """Many local optima, so that no member wins everywhere."""
    flat = images.flatten(1)
    slopes = torch.linspace(-1, 1, flat.shape[1])
    return torch.sin(15 * flat).sum(1) + (flat * slopes).sum(1)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def run(images: Tensor, method: str = "ensemble", score=rugged, **options):
    arguments = {"norm": "l2", "eps": 0.4, "steps": 6, "restarts": 2, "seed": 3} | options
    return attack(score, images, LABELS, method=method, **arguments)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_each_member_does_what_it_does_alone_and_the_worst_is_kept(images, norm):
    together = run(images, norm=norm)
    alone = {
        name: run(images, name, norm=norm, steps=6 if ATTACKS[name].needs == "gradients" else 60)
        for name in MEMBERS
    }
    assert tuple(together.members) == MEMBERS
    for name, result in alone.items():
        np.testing.assert_array_equal(together.members[name], result.scores)
    worst = SIGNS * np.max([SIGNS * result.scores for result in alone.values()], axis=0)
    np.testing.assert_array_equal(together.scores, worst)
    np.testing.assert_allclose(rugged(together.images).numpy(), together.scores, rtol=1e-5)


def test_the_info_adds_up_and_keeps_that_of_the_members(images):
    result = run(images)
    assert result.info["attack"] == "ensemble"
    assert tuple(result.info["members"]) == MEMBERS
    for cost in ("gradient_evaluations", "score_queries"):
        assert result.info[cost] == sum(info[cost] for info in result.info["members"].values())
    assert result.info["members"]["square"]["score_queries"] == 6 * 2 * 60
    assert sum(result.info["decided_by"].values()) == 6
    gains = SIGNS[:, None] * result.trace
    assert (np.diff(gains, axis=1) >= 0).all()
    np.testing.assert_allclose(result.trace[:, -1], result.scores, rtol=1e-5)


def test_the_clean_scores_are_asked_for_once(images):
    passes = 0

    def score(points: Tensor) -> Tensor:
        nonlocal passes
        passes += torch.equal(points.detach(), images.flip(0))  # the order of a reported score
        return rugged(points)

    run(images, score=score)
    assert passes == 1


def test_a_curve_of_ensembles_never_improves(images):
    curve = attack_curve(lambda eps, previous: run(images, eps=eps, previous=previous), [0.1, 0.3, 0.9])
    gains = np.stack([SIGNS * result.scores for result in curve])
    assert (np.diff(gains, axis=0) >= 0).all()
    assert all(
        (SIGNS * result.scores >= SIGNS * member).all()
        for result in curve
        for member in result.members.values()
    )


def test_a_smoothed_score_is_attacked_by_all_members(images):
    smoothed = SmoothedDetector(rugged, sigma=0.1, n=40, batch_size=50, smoothing="input")
    result = run(images, score=smoothed, steps=2, restarts=1, eot=4)
    gained = SIGNS * (result.scores - result.clean_scores)
    assert (gained >= 0).all()
    assert (gained > 0.5).sum() > 3
    for scores in result.members.values():
        assert (SIGNS * (result.scores - scores) >= 0).all()
    assert result.info["noise_chunks"] == 20
    assert result.info["n_eval"] == 40


def test_a_score_without_gradient_is_attacked_by_scores_alone(images):
    members = ENSEMBLES["black_box"]
    assert {ATTACKS[name].needs for name in members} == {"scores"}
    assert (needs_of("black_box"), needs_of("ensemble"), needs_of("pgd")) == (
        "scores",
        "gradients",
        "gradients",
    )
    result = run(images, "black_box", score=lambda points: rugged(points.detach()))
    assert tuple(result.members) == members
    assert result.info["gradient_evaluations"] == 0
    assert result.info["steps"] == 6  # as asked for, to be repeated; each member has ten queries for each
    assert result.info["members"]["square"]["steps"] == 60
    assert (SIGNS * (result.scores - result.clean_scores) > 0).all()


def test_its_checks_repeat_it(images):
    detached = lambda points: rugged(points.detach())  # noqa: E731
    result = attack(detached, images, LABELS, norm="l2", eps=0.4, method="black_box", steps=6)
    outcomes = {one.name: one for one in run_checks(detached, images, LABELS, result, "mandatory")}
    assert outcomes["floor"].passed
    assert outcomes["black_boxes"].passed is None  # a black box itself


def test_what_cannot_work_is_refused(images):
    with pytest.raises(InputError, match="steps"):
        run(images, steps=0)
    with pytest.raises(InputError, match="no gradient"):
        run(images, score=lambda points: rugged(points.detach()))
    with pytest.raises(InputError, match="references: got shape"):
        run(images, material=Material(references=torch.rand(3, 1, 5, 5)))
