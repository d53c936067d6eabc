import numpy as np
import pytest
import torch
from torch import Tensor

from diffad.attacks import Material, attack
from diffad.attacks.ports import a3_port, caa_port, falling_sizes

LABELS = [0, 1, 0, 1]
SIGNS = np.array([1.0, -1.0, 1.0, -1.0])
WEIGHTS = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(3))


def linear(images: Tensor) -> Tensor:
    return (images * WEIGHTS).sum((1, 2, 3))


def far_peaks(images: Tensor) -> Tensor:
    """Flat slopes up at the clean image, and steep ones far away."""
    flat = images.flatten(1)
    return torch.sin(9 * flat).sum(1) + 0.5 * torch.sin(31 * flat).sum(1)


def features(images: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.tanh(0.1 * images.flatten(1) @ torch.randn(16, 5, generator=generator))


@pytest.fixture
def images() -> Tensor:
    return 0.5 + 0.4 * (torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5)


@pytest.mark.parametrize("method", ["a3_port", "caa_port"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_linear_score_reaches_its_optimum(images, norm, method):
    dual = WEIGHTS.norm() if norm == "l2" else WEIGHTS.abs().sum()
    result = attack(linear, images, LABELS, norm=norm, eps=0.1, method=method)
    np.testing.assert_allclose(SIGNS * (result.scores - result.clean_scores), 0.1 * float(dual), rtol=1e-3)


@pytest.mark.parametrize("given", [None, features], ids=["pixels", "features"])
@pytest.mark.parametrize(("method", "steps"), [("a3_port", 60), ("caa_port", 40), ("caa_port", 3)])
def test_the_budget_is_spent_whatever_the_batch(images, method, steps, given):
    arguments = {"norm": "l2", "eps": 0.5, "steps": steps, "restarts": 2}
    material = Material(features=given)
    whole = attack(far_peaks, images, LABELS, method=method, material=material, **arguments)
    split = attack(far_peaks, images, LABELS, method=method, material=material, batch_size=3, **arguments)
    np.testing.assert_allclose(whole.scores, split.scores, rtol=1e-4)
    assert whole.info["gradient_evaluations"] == 4 * 2 * steps
    assert whole.trace.shape == split.trace.shape


def test_rounds_of_a3_escape_where_one_ascent_stays(images):
    arguments = {"norm": "linf", "eps": 0.5}
    one = attack(far_peaks, images, LABELS, method="a3_port", steps=25, **arguments)
    many = attack(far_peaks, images, LABELS, method="a3_port", steps=250, **arguments)
    assert (SIGNS * many.scores >= SIGNS * one.scores - 1e-6).all()
    assert (SIGNS * (many.scores - one.scores) > 0.1).any()


def test_caa_passes_by_the_reference(images):
    """The second stage alone reaches a peak that no gradient at the clean image points to."""
    board = torch.tensor([[0.1, 0.9], [0.9, 0.1]]).repeat(1, 1, 2, 2)

    def spike(points: Tensor) -> Tensor:
        return torch.exp(-200 * (points - board).square().mean((1, 2, 3))) + 0.001 * linear(points)

    noise = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    material = Material(references=board + 0.05 * noise)
    arguments = {"norm": "linf", "eps": 0.9, "steps": 100}
    result = attack(spike, images, LABELS, method="caa_port", material=material, **arguments)
    assert (result.scores[::2] > 0.9).all()
    assert (attack(spike, images, LABELS, method="apgd", **arguments).scores[::2] < 0.5).all()


def test_step_sizes_fall_as_said():
    np.testing.assert_allclose(falling_sizes(0.2, 0.1, 5)[::2], [0.2, 0.11, 0.02])
    assert falling_sizes(0.2, 0.1, 1) == [0.2]


def test_the_docstrings_say_what_was_changed():
    for port in (a3_port, caa_port):
        assert "Kept:" in port.__doc__
        assert "Changed:" in port.__doc__
