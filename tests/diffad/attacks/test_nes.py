import numpy as np
import pytest
import torch
from torch import Tensor

from diffad.attacks import ThreatModel, attack

SHAPE = (1, 5, 5)
WEIGHTS = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
LABELS = [0, 1, 0, 1, 1, 0]
SIGNS = np.where(np.array(LABELS) == 0, 1.0, -1.0)


def linear(points: Tensor) -> Tensor:
    return (points * WEIGHTS.to(points)).sum((1, 2, 3))


def images() -> Tensor:
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))


def gain(result) -> np.ndarray:
    return SIGNS * (result.scores - result.clean_scores)


@pytest.mark.parametrize("method", ["nes", "spsa"])
@pytest.mark.parametrize(("norm", "share"), [("l2", 0.97), ("linf", 0.92)])
def test_a_linear_score_comes_near_its_closed_form_optimum(method, norm, share):
    clean = 0.3 + 0.4 * images()
    result = attack(linear, clean, LABELS, norm=norm, eps=0.2, method=method)
    best = 0.2 * float(WEIGHTS.norm() if norm == "l2" else WEIGHTS.abs().sum())
    assert (gain(result) >= share * best).all()
    assert (gain(result) <= best * (1 + 1e-5)).all()


@pytest.mark.parametrize("method", ["nes", "spsa"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("steps", [1, 2, 3, 45])
def test_it_keeps_to_its_budget_and_looks_only_at_allowed_images(method, norm, steps):
    threat, seen = ThreatModel(norm, 0.3), []

    def recorded(points: Tensor) -> Tensor:
        seen.append(points.clone())
        return linear(points.detach())

    result = attack(recorded, images(), LABELS, norm=norm, eps=0.3, method=method, steps=steps)
    assert len(seen) - 2 <= steps  # beside the clean scores and the fresh pass
    assert result.info["score_queries"] == (len(seen) - 2) * len(LABELS)
    assert result.info["gradient_evaluations"] == 0
    for points in seen[1:-1]:
        threat.check(points, images())
    assert (gain(result) > 0).any() == (steps > 2)


@pytest.mark.parametrize("method", ["nes", "spsa"])
def test_a_score_in_steps_is_climbed_where_its_gradient_is_zero(method):
    result = attack(
        lambda x: (8 * linear(x.detach())).round(),
        0.3 + 0.4 * images(),
        LABELS,
        norm="l2",
        eps=0.3,
        method=method,
    )
    assert (gain(result) >= 0.8 * 8 * 0.3 * float(WEIGHTS.norm())).all()


@pytest.mark.parametrize("method", ["nes", "spsa"])
def test_results_do_not_depend_on_the_batch_size_or_the_order(method):
    options = {"norm": "linf", "eps": 0.1, "method": method, "steps": 100, "restarts": 2}
    whole = attack(linear, images(), LABELS, **options)
    split = attack(linear, images(), LABELS, batch_size=5, **options)
    np.testing.assert_allclose(split.scores, whole.scores, rtol=1e-4)
    order = [3, 1, 5, 0, 2, 4]
    shuffled = attack(linear, images()[order], [LABELS[row] for row in order], indices=order, **options)
    np.testing.assert_allclose(shuffled.scores, whole.scores[order], rtol=1e-4)
    assert not torch.equal(attack(linear, images(), LABELS, seed=1, **options).images, whole.images)
