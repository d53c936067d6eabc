"""What an attack may differentiate of a diffusion detector: other summaries, other gradients, fewer shots."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffad.attacks import RandomTarget, attack
from diffad.attacks.gradients import processes_of
from diffad.diffusion.purifier import Purifier
from diffad.diffusion.scores import SCORE_NAMES

SUMMARIES = ("mean_map", "top_map", "soft_map")


def gradient(function, points: Tensor) -> tuple[Tensor, Tensor]:
    leaf = points.clone().requires_grad_()
    values = function(leaf)
    (found,) = torch.autograd.grad(values.square().sum(), leaf)
    return values.detach(), found


@pytest.mark.parametrize("shots", [1, 4])
def test_checkpointing_every_step_leaves_the_gradient_as_it_is(shots: int, tiny) -> None:
    purifier = Purifier(tiny.denoiser(prediction_type="epsilon"), shots=shots, seed=2)
    plain, expected = gradient(lambda points: purifier.reconstruct(points, 0.25), tiny.images(3))
    process = purifier.processes()["checkpointed"]
    values, found = gradient(lambda points: process(points, 0.25), tiny.images(3))
    torch.testing.assert_close(values, plain, rtol=0, atol=0)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_checkpointing_keeps_one_network_call_at_a_time(tiny) -> None:
    """What stays between the passes: all activations of every call without it, little beside a step's input with it."""
    purifier = Purifier(tiny.denoiser(prediction_type="epsilon"), shots=4)
    kept = {}
    for name in ("plain", "checkpointed"):
        process = {"plain": purifier.reconstruct, **purifier.processes()}[name]
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            process(tiny.images(2).requires_grad_(), 0.25)
        kept[name] = sum(sizes)
    assert kept["checkpointed"] < kept["plain"] / 10


def test_bpda_keeps_the_value_and_takes_the_identity_for_a_gradient(tiny) -> None:
    purifier = Purifier(tiny.denoiser(), shots=2)
    plain, exact = gradient(lambda points: purifier.reconstruct(points, 0.25), tiny.images(2))
    process = processes_of(purifier, residual=False)["bpda"]
    values, found = gradient(lambda points: process(points, 0.25), tiny.images(2))
    torch.testing.assert_close(values, plain)
    torch.testing.assert_close(found, 2 * values)
    assert not torch.allclose(found, exact, atol=1e-2)


def test_a_shorter_chain_starts_with_the_same_steps(tiny) -> None:
    denoiser = tiny.denoiser(prediction_type="epsilon")
    offered = Purifier(denoiser, shots=6, seed=3).processes()
    assert set(offered) == {"checkpointed", "1_shot", "2_shots", "5_shots"}
    two = Purifier(denoiser, shots=2, seed=3).reconstruct(tiny.images(2), 0.25)
    assert torch.equal(offered["2_shots"](tiny.images(2), 0.25), two)
    assert set(Purifier(denoiser).processes()) == {"checkpointed"}


@pytest.mark.parametrize("name", SCORE_NAMES)
def test_summaries_are_of_the_map_whose_maximum_is_the_score(name, tiny) -> None:
    detector, images = tiny.detector(score_name=name), tiny.images(3)
    offered = detector.surrogates()
    assert set(offered) == {*SUMMARIES, "bpda_constant", "checkpointed"}
    residual = images - tiny.images(3, seed=9)
    places = detector._places(residual, name).flatten(1)
    score = detector.scores_of_residual(residual, name)
    expected = places.square().sum(1).sqrt() if name == "l2" else places.amax(1)
    torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-5)
    assert (places.mean(1) < score).all()
    one = detector.noise_[:1]
    reconstruction = detector.reconstruct(images + detector.sigma * one, detector.sigma)
    mean = detector._places(images - reconstruction, name).flatten(1).mean(1)
    torch.testing.assert_close(offered["mean_map"](images, one), mean)
    torch.testing.assert_close(offered["checkpointed"](images), detector.score(images))


@pytest.mark.parametrize("kind", ["stored", "fresh"])
def test_every_surrogate_finds_something_and_the_detector_judges_it(kind, tiny) -> None:
    detector, images = tiny.detector(score_name="patch_max", shots=2), tiny.images(4)
    target = detector if kind == "stored" else RandomTarget(detector, draws=5, select_draws=5)
    for name in (None, *SUMMARIES, "bpda_constant", "checkpointed", "1_shot"):
        found = attack(target, images, [0, 1, 0, 1], norm="linf", eps=0.1, steps=5, eot=2, objective=name)
        gain = (found.scores - found.clean_scores) * [1, -1, 1, -1]
        assert gain.sum() > 0
        assert found.info["objective"] == (name or {"stored": "score", "fresh": "expected_score"}[kind])


def test_the_checkpointed_attack_is_the_plain_attack(tiny) -> None:
    detector, images = tiny.detector(shots=3), tiny.images(3)
    options = {"norm": "l2", "eps": 0.3, "steps": 6, "eot": 2}
    target = RandomTarget(detector, draws=4, select_draws=4)
    plain = attack(target, images, [0, 1, 0], **options)
    again = attack(target, images, [0, 1, 0], objective="checkpointed", **options)
    torch.testing.assert_close(again.images, plain.images, rtol=0, atol=1e-5)
