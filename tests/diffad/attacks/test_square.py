import numpy as np
import pytest
import torch
from torch import Tensor

from certify import SmoothedDetector
from diffad.attacks import Material, ThreatModel, attack
from diffad.attacks.features import NEAREST, WORST
from diffad.attacks.square import _pyramids, square_area

SHAPE = (3, 6, 6)
WEIGHTS = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
LABELS = [0, 1, 0, 1, 1, 0]
SIGNS = np.where(np.array(LABELS) == 0, 1.0, -1.0)


def linear(points: Tensor) -> Tensor:
    return (points * WEIGHTS.to(points)).sum((1, 2, 3))


def stepwise(points: Tensor) -> Tensor:
    """No gradient, and plateaus wider than most single changes."""
    return (4 * linear(points.detach())).round()


def images(count: int = 6, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return 0.3 + 0.4 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def gain(result) -> np.ndarray:
    return SIGNS * (result.scores - result.clean_scores)


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.99), ("l2", 0.5)])
def test_a_linear_score_of_random_weights_comes_near_its_closed_form_optimum(norm, share):
    result = attack(linear, images(), LABELS, norm=norm, eps=0.2, method="square", steps=1500)
    best = 0.2 * float(WEIGHTS.norm() if norm == "l2" else WEIGHTS.abs().sum())
    assert (gain(result) >= share * best).all()
    assert (gain(result) <= best * (1 + 1e-5)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_needs_no_gradient_and_keeps_to_its_budget(norm):
    result = attack(stepwise, images(), LABELS, norm=norm, eps=0.2, method="square", steps=300, restarts=2)
    assert (gain(result) >= 3).all()
    assert result.info["score_queries"] == 300 * 2 * len(LABELS)
    assert result.info["gradient_evaluations"] == 0
    assert result.trace.shape == (len(LABELS), 300)
    assert (np.diff(SIGNS[:, None] * result.trace) >= 0).all()
    one = attack(linear, images(), LABELS, norm=norm, eps=0.2, method="square", steps=1)
    np.testing.assert_array_equal(one.scores, one.clean_scores)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_results_do_not_depend_on_the_batch_size_or_the_order(norm):
    options = {"norm": norm, "eps": 0.2, "method": "square", "steps": 60, "restarts": 2, "seed": 3}
    whole = attack(linear, images(), LABELS, **options)
    split = attack(linear, images(), LABELS, batch_size=5, **options)
    torch.testing.assert_close(split.images, whole.images, rtol=0, atol=1e-6)
    order = [3, 1, 5, 0, 2, 4]
    shuffled = attack(linear, images()[order], [LABELS[row] for row in order], indices=order, **options)
    torch.testing.assert_close(shuffled.images, whole.images[order], rtol=0, atol=1e-6)
    assert not torch.equal(attack(linear, images(), LABELS, **options | {"seed": 4}).images, whole.images)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_each_image_has_squares_of_its_own(norm):
    """Two equal images with different names part at the first square, not only at the start."""
    seen = []

    def recorded(points: Tensor) -> Tensor:
        seen.append(points.clone())
        return points.flatten(1).sum(1) * 0  # every change is kept: none improves, none worsens

    twice = images(1).repeat(2, 1, 1, 1)
    attack(recorded, twice, [0, 0], norm=norm, eps=0.1, method="square", steps=4)
    first, second = seen[3] - seen[2], seen[4] - seen[3]  # after the clean scores, the start and the stripes
    for change in (first, second):
        assert change.abs().amax((1, 2, 3)).min() > 0
        assert not torch.equal(change[0], change[1])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 7), (3, 5, 4), (1, 23, 16)])
def test_every_point_lies_in_ball_and_box_whatever_the_shape(norm, shape):
    clean, threat, seen = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)), [], []
    threat = ThreatModel(norm, 0.3)

    def recorded(points: Tensor) -> Tensor:
        if len(points) == len(clean):
            seen.append(points.clone())
        return points.flatten(1).mean(1)

    result = attack(recorded, clean, [0, 1, 0], norm=norm, eps=0.3, method="square", steps=50)
    for points in seen[1:-1]:
        threat.check(points, clean)
    assert (result.scores != result.clean_scores).any()


def test_l2_squares_use_the_whole_radius_where_the_box_leaves_room():
    result = attack(linear, images(), LABELS, norm="l2", eps=0.2, method="square", steps=50)
    distance = ThreatModel("l2", 0.2).distance(result.images, images())
    np.testing.assert_allclose(distance.numpy(), 0.2, rtol=1e-5)


def test_squares_shrink_at_the_halvings_of_the_paper():
    assert square_area(0.0) == 0.8
    assert square_area(0.001) == 0.8
    assert square_area(0.0011) == 0.4
    assert square_area(0.05) == 0.8 / 2**3
    assert square_area(0.99) == 0.8 / 2**9


@pytest.mark.parametrize("side", [1, 2, 3, 6, 7])
def test_pyramids_are_opposite_and_of_unit_length(side):
    pair = _pyramids(side)
    assert pair.shape == (side, side)
    assert float(pair.norm()) == pytest.approx(1.0)
    if side > 1:
        assert (pair[: side // 2] > 0).all()
    assert (pair[side // 2 :] < 0).all()


def test_a_smoothed_detector_is_attacked_by_its_scores_and_stays_within_its_certificate():
    smoothed = SmoothedDetector(linear, sigma=0.1, smoothing="input", n=100, batch_size=100, seed=8)
    result = attack(smoothed, images(), LABELS, norm="l2", eps=0.2, method="square", steps=100, eot=4)
    assert (gain(result) >= 0.25 * 0.2 * float(WEIGHTS.norm())).all()
    certified = smoothed.bounds(images(), range(6), [0.2]).at(0)
    assert (result.bounds().lower >= certified.lower).all()
    assert (result.bounds().upper <= certified.upper).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_from_other_images_it_reaches_what_they_score_where_the_ball_holds_them(norm):
    def needle(points: Tensor) -> Tensor:
        return (points.detach() == 0.5).flatten(1).all(1).float()

    material = Material(references=torch.cat([images(), torch.full((1, *SHAPE), 0.5)]))
    options = {"norm": norm, "eps": 1.0 if norm == "linf" else 11.0, "steps": 20, "material": material}
    found = attack(needle, images(), LABELS, method="square_target", **options)
    np.testing.assert_array_equal(found.scores, np.where(SIGNS > 0, 1.0, 0.0))
    assert found.info["score_queries"] == (20 + NEAREST + WORST + 1) * len(LABELS)
    alone = attack(needle, images(), LABELS, method="square", **options)
    assert (alone.scores == 0).all()


def test_from_other_images_it_goes_on_where_they_leave_off():
    options = {"norm": "l2", "eps": 0.2, "restarts": 2}
    start = attack(linear, images(), LABELS, method="square_target", steps=1, **options)
    found = attack(linear, images(), LABELS, method="square_target", steps=300, **options)
    assert (gain(found) > gain(start)).all()
