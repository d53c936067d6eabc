import numpy as np
import pytest
import torch
from torch import Tensor

from diffad.attacks import ThreatModel, attack

LABELS = [0, 1, 0, 1]


def images() -> Tensor:
    return torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4


def brightness(points: Tensor) -> Tensor:
    return points.mean((1, 2, 3))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_half_of_the_points_fill_the_ball_and_half_lie_on_its_edge(norm):
    seen, clean, threat = [], images(), ThreatModel(norm, 0.2)

    def recorded(points: Tensor) -> Tensor:
        seen.append(points.clone())
        return brightness(points)

    result = attack(recorded, clean, LABELS, norm=norm, eps=0.2, method="noise", steps=200)
    assert result.info["score_queries"] == 200 * 4
    visited = seen[1:-1]  # between the clean scores and the fresh pass
    distance = torch.stack([threat.distance(points, clean) for points in visited])
    np.testing.assert_allclose(distance[1::2].numpy(), 0.2, rtol=1e-5)
    assert (distance[::2] < 0.2).all()
    if norm == "linf":
        moved = torch.stack([points - clean for points in visited])
        np.testing.assert_allclose(moved[1::2].abs().numpy(), 0.2, rtol=1e-5)
        assert float(moved[::2].abs().mean()) == pytest.approx(0.1, rel=0.02)
    assert not torch.equal(visited[0] - clean, visited[2] - clean)
    best = torch.stack([brightness(points) for points in visited])
    expected = torch.where(torch.tensor(LABELS) == 0, best.amax(0), best.amin(0))
    np.testing.assert_allclose(result.scores, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_are_keyed_by_image_restart_and_seed(norm):
    options = {"norm": norm, "eps": 0.2, "method": "noise", "steps": 20}
    whole = attack(brightness, images(), LABELS, restarts=5, **options)
    split = attack(brightness, images(), LABELS, restarts=5, batch_size=3, **options)
    assert torch.equal(whole.images, split.images)
    fewer = attack(brightness, images(), LABELS, **options)
    gains = np.where(np.array(LABELS) == 0, 1.0, -1.0) * (whole.scores - fewer.scores)
    assert (gains >= 0).all()
    assert (gains > 0).any()
    assert not torch.equal(attack(brightness, images(), LABELS, seed=1, **options).images, fewer.images)


def test_it_loses_to_a_gradient():
    noise = attack(brightness, images(), LABELS, norm="l2", eps=0.2, method="noise", steps=200)
    pgd = attack(brightness, images(), LABELS, norm="l2", eps=0.2)
    assert (np.abs(pgd.scores - pgd.clean_scores) > 1.2 * np.abs(noise.scores - noise.clean_scores)).all()
