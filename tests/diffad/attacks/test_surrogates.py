"""Objectives by name, for each kind of target."""

import numpy as np
import pytest
import torch
from torch import Tensor

from certify import SmoothedDetector, SmoothedSum
from certify.checks import InputError
from diffad.attacks import RandomTarget, SmoothedTarget, attack, surrogate_names
from diffad.attacks.objective import Rows, ScoreObjective
from diffad.attacks.surrogates import named_objective
from diffad.attacks.target import ScoreTarget
from diffad.baselines.closed_form import ClosedForm
from diffad.baselines.patch_nn import PatchNN
from diffad.baselines.pixel_nn import PixelNN

SHAPE = (1, 6, 6)
LABELS = [0, 1, 0, 1]
SIGNS = np.where(np.array(LABELS) == 0, 1.0, -1.0)
DRAWS = {"eot": 4, "seed": 3, "first_chunk": 0, "steps": 5}
ROWS = Rows((0, 1, 2, 3), (0, 0, 0, 0))
NAMES = {
    "pixel_nn": ("soft_nn", "mean_image"),
    "patch_nn": ("mean_map", "top_map", "soft_map"),
    "closed_form": ("mean_draws", "bpda_constant"),
}


def images(seed: int = 1, count: int = len(LABELS)) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def detectors():
    train = images(0, 40)
    return {
        "pixel_nn": PixelNN().fit(train),
        "patch_nn": PatchNN(patch_size=3, bank_size=50).fit(train),
        "closed_form": ClosedForm(sigma=0.5, draws=3).fit(train),
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_attacked_through_its_surrogates_and_judged_by_itself(name, detectors):
    detector = detectors[name]
    assert surrogate_names(ScoreTarget(detector.score)) == NAMES[name]
    for surrogate in NAMES[name]:
        found = attack(detector, images(), LABELS, norm="linf", eps=0.1, steps=15, objective=surrogate)
        assert found.info["objective"] == surrogate
        np.testing.assert_allclose(found.scores, detector.score_array(found.images), rtol=1e-5)
        # mean gain: the mean of a bank says little of one nearest neighbour, but something
        assert (SIGNS * (found.scores - found.clean_scores)).mean() > 0


def test_the_soft_neighbour_lies_between_the_nearest_and_the_others(detectors):
    detector = detectors["pixel_nn"]
    soft, hard = detector.surrogates()["soft_nn"](images()), detector.score(images())
    farther = PixelNN(k=32).fit(detector.bank.view(-1, *SHAPE)).score(images()) / 32
    assert (soft >= hard - 1e-6).all()
    assert (soft <= farther).all()


def test_a_patch_surrogate_summarises_the_distances_of_all_patches(detectors):
    detector = detectors["patch_nn"]
    patches = images().unfold(2, 3, 1).unfold(3, 3, 1).reshape(len(LABELS), -1, 9)
    distances = torch.cdist(patches.double(), detector.bank.double().expand(len(LABELS), -1, -1)).amin(2)
    torch.testing.assert_close(detector.surrogates()["mean_map"](images()), distances.mean(1).float())
    torch.testing.assert_close(detector.score(images()), distances.amax(1).float())


def test_a_random_target_differentiates_the_surrogate_under_the_same_fresh_draws(detectors):
    target = RandomTarget(detectors["closed_form"])
    plain = target.objective(**DRAWS)
    named = named_objective(target, "mean_draws", **DRAWS)
    assert (named.name, named.exact, named.passes) == ("mean_draws", False, 4)
    # one draw at a time, the median of the draws is their mean
    torch.testing.assert_close(named(images(), ROWS, 2), plain(images(), ROWS, 2))
    bpda = named_objective(target, "bpda_constant", **DRAWS)
    torch.testing.assert_close(bpda(images(), ROWS, 2), plain(images(), ROWS, 2))
    gradients = []
    for objective in (plain, bpda):
        leaf = images().requires_grad_()
        gradients.append(torch.autograd.grad(objective(leaf, ROWS, 2).sum(), leaf)[0])
    assert not torch.allclose(*gradients, atol=1e-3)


@pytest.mark.parametrize("way", ["input", "denoise", "reference", "sure"])
def test_a_smoothed_target_differentiates_the_surrogate_inside_its_percentile(way, detectors):
    detector = detectors["closed_form"]
    smoothed = SmoothedDetector(detector, 0.4, way, n=50, batch_size=50)
    target = SmoothedTarget(smoothed)
    plain = target.objective(**DRAWS)
    names = surrogate_names(target)
    approximation = "bpda" if way == "denoise" else "bpda_constant"
    inside = ("bpda",) if way == "denoise" else ()
    assert names == (("bpda_constant",) if way == "sure" else (*NAMES["closed_form"], *inside))
    for name in names:
        named = named_objective(target, name, **DRAWS)
        assert (named.name, named.exact, named.passes) == (name, False, plain.passes)
        leaf = images().requires_grad_()
        values = named(leaf, ROWS, 1)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
        assert (gradient.flatten(1).norm(dim=1) > 0).all()
        # of the way `input` it is the mean over the stored draws inside A, not the median
        if name == approximation and way != "input":
            torch.testing.assert_close(values, plain(images(), ROWS, 1), rtol=1e-4, atol=1e-4)
    found = attack(
        target,
        images(),
        LABELS,
        norm="l2",
        eps=0.3,
        steps=5,
        eot=4,
        objective=approximation,
        indices=range(4),
    )
    assert found.info["objective"] == approximation
    assert smoothed.base is target.smoothed.base  # the target itself stays what it was


def test_a_purifier_of_its_own_names_its_processes(detectors):
    class Halve:
        def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
            return noisy / 2

        def processes(self):
            return {"identity": lambda noisy, sigma: noisy}

    smoothed = SmoothedDetector(detectors["pixel_nn"], 0.2, "denoise", n=50, batch_size=50, purifier=Halve())
    target = SmoothedTarget(smoothed)
    assert surrogate_names(target) == ("soft_nn", "mean_image", "bpda", "identity")
    unpurified = SmoothedTarget(SmoothedDetector(detectors["pixel_nn"], 0.2, "input", n=50, batch_size=50))
    values = named_objective(target, "identity", **DRAWS)(images(), ROWS, 0)
    torch.testing.assert_close(values, unpurified.objective(**DRAWS)(images(), ROWS, 0))


def test_every_level_of_a_sum_gets_the_surrogate(detectors):
    levels = [
        SmoothedDetector(detectors["pixel_nn"], sigma, "input", n=50, batch_size=50, seed=seed)
        for seed, sigma in enumerate((0.1, 0.4))
    ]
    target = SmoothedTarget(SmoothedSum(levels, (1.0, 2.0)))
    values = named_objective(target, "soft_nn", **DRAWS)(images(), ROWS, 0)
    parts = [
        named_objective(SmoothedTarget(level), "soft_nn", **DRAWS)(images(), ROWS, 0) for level in levels
    ]
    torch.testing.assert_close(values, parts[0] + 2.0 * parts[1])
    assert surrogate_names(target) == NAMES["pixel_nn"]


def test_unknown_names_say_what_there_is(detectors):
    options = {"norm": "l2", "eps": 0.1, "steps": 1}
    with pytest.raises(InputError, match="got 'soft', PixelNN offers soft_nn, mean_image"):
        attack(detectors["pixel_nn"], images(), LABELS, objective="soft", **options)
    with pytest.raises(InputError, match="function offers none"):
        attack(lambda points: points.mean((1, 2, 3)), images(), LABELS, objective="soft", **options)


class Custom:
    """A deterministic target that is no `ScoreTarget`: the mean of the pixels."""

    noisy, device, batch_size = False, "cpu", 8

    def scores(self, points, names, purpose):
        return points.double().mean((1, 2, 3)).numpy()

    def objective(self, *, eot, seed, first_chunk, steps):
        return ScoreObjective(lambda points: points.mean((1, 2, 3)))

    def describe(self):
        return {}


@pytest.mark.parametrize("noisy", [True, False])
def test_queries_ask_the_target_and_not_the_surrogate(noisy):
    """The surrogate is the opposite of the score: a method that queries it keeps the wrong points."""

    def score(images):
        return images.mean((1, 2, 3))

    grey, labels = torch.full((2, 1, 4, 4), 0.5), [0, 1]
    detector = SmoothedDetector(score, 0.1, "input", n=50, batch_size=50) if noisy else Custom()
    options = {"norm": "linf", "eps": 0.2, "method": "square", "steps": 40, "eot": 4}
    wanted = attack(detector, grey, labels, **options)
    found = attack(detector, grey, labels, **options, objective=lambda x: -score(x))
    assert (np.abs(found.scores - found.clean_scores) > 0.1).all()
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
