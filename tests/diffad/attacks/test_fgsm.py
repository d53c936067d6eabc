import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.attacks import attack, attack_curve

LABELS = [0, 1, 0, 1]


def bumps(images: Tensor) -> Tensor:
    """Rugged, so that a step from elsewhere ends elsewhere."""
    return torch.sin(20 * images).sum((1, 2, 3))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_the_point_is_the_clean_image_plus_eps_times_the_sign(images):
    visited = []

    def score(points: Tensor) -> Tensor:
        visited.append(points.detach().clone())
        return bumps(points)

    result = attack(score, images, LABELS, norm="linf", eps=0.1, method="fgsm")
    direction = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(-1, 1, 1, 1)
    expected = (images + 0.1 * direction * torch.cos(20 * images).sign()).clamp(0, 1)
    torch.testing.assert_close(visited[2], expected)  # after the clean scores and the gradient
    assert result.info["steps"] == 1
    assert result.info["gradient_evaluations"] == 4


def test_on_a_curve_it_starts_at_the_clean_image_each_time(images):
    def run(eps, previous):
        return attack(bumps, images, LABELS, norm="linf", eps=eps, method="fgsm", previous=previous)

    curve = attack_curve(run, [0.05, 0.2])
    alone = run(eps=0.2, previous=None)
    signs = np.array([1.0, -1.0, 1.0, -1.0])
    np.testing.assert_allclose(
        signs * curve[1].scores, np.maximum(signs * curve[0].scores, signs * alone.scores), rtol=1e-6
    )


def test_it_has_one_step_and_more_restarts_start_at_random(images):
    with pytest.raises(InputError, match="steps: got 3"):
        attack(bumps, images, LABELS, norm="linf", eps=0.1, method="fgsm", steps=3)
    one = attack(bumps, images, LABELS, norm="linf", eps=0.1, method="fgsm")
    many = attack(bumps, images, LABELS, norm="linf", eps=0.1, method="fgsm", restarts=10)
    signs = np.array([1.0, -1.0, 1.0, -1.0])
    gained = signs * (many.scores - one.scores)
    assert (gained >= -1e-6).all()
    assert (gained > 1e-3).any()
