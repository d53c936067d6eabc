"""Fifteen traps that published evaluations of robust anomaly detectors fell into, each with the test that catches it.

Traps of detectors that are not here (losses, generators) are set up with toys of the same shape. Those of scores and
attacks stand here, those of networks, data and records in `test_traps_around.py`.
"""

from __future__ import annotations

import broken
import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from certify.metrics import auroc
from certify.noise import gaussian_noise
from certify.types import ScoreBounds
from diffad.attacks import ATTACKS, AttackResult, ThreatModel, attack
from diffad.attacks import methods as methods_module
from diffad.attacks.checks import run_checks

IMAGES, LABELS = broken.images(), broken.labels()
SIGNS = np.where(LABELS.numpy() == 0, 1.0, -1.0)


def gains(found: AttackResult) -> np.ndarray:
    return np.where(found.labels == 0, 1.0, -1.0) * (found.scores - found.clean_scores)


def both(found: AttackResult) -> float:
    return float(auroc(found.bounds(), found.labels, "both", ScoreBounds.exact(found.clean_scores)))


def passed(detector: object, found: AttackResult, *only: str, **options: object) -> list[bool | None]:
    outcomes = run_checks(detector, IMAGES, LABELS, found, only=only, **options)
    return [outcome.passed for outcome in outcomes]


def test_trap_01_a_surrogate_in_place_of_the_score():
    """ZARND's PGD: the distance to the mean feature instead of the nearest neighbours."""
    bank = 0.3 + 0.4 * torch.rand(6, *broken.SHAPE, generator=torch.Generator().manual_seed(5)).round()

    def nearest(images: Tensor) -> Tensor:
        distances: Tensor = torch.linalg.vector_norm((images[:, None] - bank).flatten(2), dim=2)
        return distances.amin(1)

    def mean_feature(images: Tensor) -> Tensor:
        return (images - bank.mean(0)).square().flatten(1).sum(1)

    options = {"norm": "l2", "eps": 0.3, "steps": 30}
    by_score = attack(nearest, IMAGES, LABELS, **options)
    by_surrogate = attack(nearest, IMAGES, LABELS, objective=mean_feature, **options)
    assert (gains(by_score) > gains(by_surrogate) + 1e-4).mean() > 0.8
    # what is reported is the detector's score of the images returned, whatever was differentiated
    torch.testing.assert_close(nearest(by_surrogate.images).double(), torch.from_numpy(by_surrogate.scores))
    assert by_surrogate.info["objective"] == "mean_feature"
    assert passed(nearest, by_surrogate, "shapes", objective=mean_feature) == [False]


@pytest.mark.parametrize("labels", [[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
@pytest.mark.parametrize("method", ["pgd", "fgsm", "square"])
def test_trap_02_labels_or_signs_the_wrong_way_round(method, labels):
    images = torch.full((4, *broken.SHAPE), 0.5)
    found = attack(lambda x: x.flatten(1).mean(1), images, labels, norm="linf", eps=0.1, method=method)
    brighter = (found.images.flatten(1).mean(1) > 0.5).tolist()
    assert brighter == [label == 0 for label in labels]


def rugged(images: Tensor) -> Tensor:
    return torch.sin(12 * images).flatten(1).sum(1)


def test_trap_03_the_best_restart_chosen_for_a_whole_batch():
    options = {"norm": "linf", "eps": 0.5, "steps": 3, "seed": 2}
    by_count = [attack(rugged, IMAGES, LABELS, restarts=count, **options) for count in (1, 2, 3, 4)]
    nested = np.stack([gains(found) for found in by_count])
    assert (np.diff(nested, axis=0) >= -1e-6).all()  # more restarts contain the fewer
    improved = np.diff(nested, axis=0) > 1e-4
    best = np.where(improved.any(axis=0), 3 - improved[::-1].argmax(axis=0), 0)
    assert len(set(best.tolist())) > 1  # images differ in which restart is their best
    assert (np.diff([both(found) for found in by_count]) <= 0).all()


def test_trap_04_the_last_point_returned():
    """Steps of 2.5 eps / 4 jump over the summit of a narrow ridge."""

    def ridge(images: Tensor) -> Tensor:
        return -(images.flatten(1).mean(1) - 0.53).abs()

    images = torch.full((1, *broken.SHAPE), 0.5)
    visited: list[float] = []

    def watched(points: Tensor) -> Tensor:
        visited.append(float(ridge(points).detach()[0]))
        return ridge(points)

    found = attack(watched, images, [0], norm="linf", eps=0.06, method="pgd_constant", steps=4)
    walked = visited[1:6]  # after the clean score: four gradients and the last point
    assert found.scores[0] == pytest.approx(max(walked))
    assert walked[-1] < max(walked) - 1e-3
    assert found.scores[0] == pytest.approx(found.trace[0].max())


def test_trap_05_images_beyond_the_threshold_left_alone():
    """AutoAttack stops at the flip and skips what is wrong already; an AUROC needs every image at its worst."""
    sound = broken.Sound()
    swapped = 1 - LABELS  # every image starts on the wrong side of any threshold
    for labels in (LABELS, swapped):
        for method in ("pgd", "apgd", "square"):
            found = attack(sound, IMAGES, labels, norm="l2", eps=0.1, method=method, steps=40)
            assert (gains(found) > 1e-3).all()


def test_trap_06_a_saturated_sigmoid_without_gradient():
    weights = torch.randn(broken.SHAPE, generator=torch.Generator().manual_seed(3))

    def logit(images: Tensor) -> Tensor:
        return 100 * ((images - 0.5) * weights).flatten(1).sum(1)

    def squashed(images: Tensor) -> Tensor:
        return torch.sigmoid(logit(images))

    options = {"norm": "linf", "eps": 0.02, "steps": 20}
    by_logit = attack(logit, IMAGES, LABELS, **options)
    shown = attack(squashed, IMAGES, LABELS, objective=logit, **options)
    assert shown.info["zero_gradient_share"] < 0.01
    np.testing.assert_array_equal(
        np.argsort(logit(shown.images).numpy()), np.argsort(logit(by_logit.images).numpy())
    )
    blind = attack(squashed, IMAGES, LABELS, **options)
    assert blind.info["zero_gradient_share"] > 0.01
    assert passed(squashed, blind, "zero_gradients") == [False]
    assert passed(logit, by_logit, "zero_gradients") == [True]


def test_trap_07_losses_that_need_classes(monkeypatch):
    """DLR needs three logits and FAB-T four: AutoAttack warns and goes on. Here no member is left out in silence."""
    for name in ("apgd-dlr", "fab-t"):
        with pytest.raises(InputError, match=f"method: got '{name}'"):
            attack(broken.Sound(), IMAGES, LABELS, norm="l2", eps=0.1, method=name)
    assert all(set(members) <= set(ATTACKS) for members in methods_module.ENSEMBLES.values())
    monkeypatch.setitem(methods_module.ENSEMBLES, "ensemble", ("pgd", "fab-t"))
    with pytest.raises((InputError, KeyError), match="fab-t"):
        attack(broken.Sound(), IMAGES, LABELS, norm="l2", eps=0.1, method="ensemble", steps=2)


def test_trap_11_images_of_a_batch_that_see_each_other():
    class Normed(broken.Sound):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(1)

        def score(self, images: Tensor) -> Tensor:
            return super().score(self.norm(images))

    network = Normed()
    with pytest.raises(InputError, match="training mode"):
        attack(network, IMAGES, LABELS, norm="l2", eps=0.1)
    network.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = attack(network, IMAGES, LABELS, norm="l2", eps=0.1, steps=5)
    run_checks(network, IMAGES, LABELS, found, only=["gradient_direction", "batches"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network.norm.training
    coupled = broken.Coupled()
    found = attack(coupled, IMAGES, LABELS, norm="l2", eps=0.1, steps=5)
    assert passed(coupled, found, "batches") == [False]


def test_trap_12_hidden_randomness():
    sound, state = broken.Sound(), torch.get_rng_state()
    attack(sound, IMAGES, LABELS, norm="l2", eps=0.1, steps=3, restarts=2)
    assert torch.equal(torch.get_rng_state(), state)
    reseeding = broken.Reseeding()
    found = attack(reseeding, IMAGES, LABELS, norm="l2", eps=0.1, steps=3)
    assert passed(reseeding, found, "determinism") == [False]
    threat = ThreatModel("linf", 0.1)
    first = threat.random_start(IMAGES[:1], [0], seed=0, restart=1)
    assert not torch.equal(threat.random_start(IMAGES[:1], [1], seed=0, restart=1), first)
    draws = {
        purpose: gaussian_noise(0, 0, purpose, 0, (4,))
        for purpose in ("attack", "select", "evaluate", "certify")
    }
    assert len({tuple(draw) for draw in draws.values()}) == 4  # no attack chooses on what judges it


@pytest.mark.parametrize("seed", range(5))
def test_trap_13_the_logarithm_of_a_difference(seed):
    """COBRA's eq. 2 subtracts inside a logarithm; clamped, it stays finite and bounded over all similarities."""
    generator = torch.Generator().manual_seed(seed)
    anchor, positive, opposite = torch.randn(3, 16, generator=generator)

    def parts(images: Tensor) -> tuple[Tensor, Tensor]:
        """The numerator and the denominator, of cosines with a positive and an opposite."""
        flat = images.flatten(1) - 0.5 + 0.1 * anchor
        close, far = (torch.cosine_similarity(flat, other[None]) for other in (positive, opposite))
        return (2 * close).exp() - (2 * far).exp(), (2 * close).exp() + (2 * far).exp()

    def raw(images: Tensor) -> Tensor:
        numerator, denominator = parts(images)
        return -(numerator / denominator).log()

    def clamped(images: Tensor) -> Tensor:
        numerator, denominator = parts(images)
        return -(numerator.clamp_min(1e-3) / denominator).log()

    options = {"norm": "l2", "eps": 3.0}
    with pytest.raises(InputError, match="NaN or infinity"):
        attack(raw, IMAGES, LABELS, steps=200, **options)
    found = attack(clamped, IMAGES, LABELS, steps=200, **options)
    assert np.isfinite(found.scores).all()
    assert (found.scores >= 0.0).all()  # the numerator never exceeds the denominator
    assert (found.scores <= np.log(2 * np.exp(2) / 1e-3)).all()
