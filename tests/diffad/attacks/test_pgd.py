import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from certify.checks import InputError
from diffad.attacks import attack_curve, pgd
from diffad.attacks.pgd import step_sizes

SHAPE = (3, 4, 4)
WEIGHTS = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
BOTH = [0, 1, 0, 1, 1, 0]


def linear(images: Tensor) -> Tensor:
    return (images * WEIGHTS.to(images)).sum((1, 2, 3))


def distance(images: Tensor) -> Tensor:
    """Distance to grey: its worst case within an L2 ball is its value plus or minus the radius."""
    return torch.linalg.vector_norm((images - 0.5).flatten(1), dim=1)


def images_around_grey(count: int = 6, spread: float = 0.2) -> Tensor:
    noise = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))
    return 0.5 + spread * (noise - 0.5)


def signs(labels: list[int]) -> np.ndarray:
    return np.array([1.0 if label == 0 else -1.0 for label in labels])


@pytest.mark.parametrize(("schedule", "tolerance"), [("cosine", 1e-4), ("constant", 1e-3)])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_linear_score_reaches_its_closed_form_optimum(norm, schedule, tolerance):
    images, eps = images_around_grey(), 0.1
    result = pgd(linear, images, BOTH, norm=norm, eps=eps, steps=100, schedule=schedule)
    gain = eps * float(WEIGHTS.norm() if norm == "l2" else WEIGHTS.abs().sum())
    reached = signs(BOTH) * (result.scores - result.clean_scores)
    np.testing.assert_allclose(reached, gain, rtol=tolerance)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_single_step_on_a_linear_score_is_exact(norm, schedule):
    """One cosine step is FGSM: it goes all the way to the boundary."""
    result = pgd(linear, images_around_grey(), BOTH, norm=norm, eps=0.1, steps=1, schedule=schedule)
    gain = 0.1 * float(WEIGHTS.norm() if norm == "l2" else WEIGHTS.abs().sum())
    np.testing.assert_allclose(signs(BOTH) * (result.scores - result.clean_scores), gain, rtol=1e-4)


def exact_gain_in_box(clean: Tensor, direction: float, eps: float) -> float:
    """Return max of direction * w.delta over L2 ball and box: delta = clip(lambda w), by bisection."""
    weights, clean = direction * WEIGHTS.double(), clean.double()
    low, high = 0.0, 1e6

    def delta(scale: float) -> Tensor:
        return (clean + scale * weights).clamp(0, 1) - clean

    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float(delta(middle).norm()) <= eps else (low, middle)
    return float((weights * delta(low)).sum())


@pytest.mark.parametrize("eps", [0.5, 2.0, 3.5])
def test_a_linear_score_in_l2_reaches_the_exact_optimum_where_the_box_is_active(eps):
    images = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(2))
    result = pgd(linear, images, BOTH, norm="l2", eps=eps, steps=200)
    expected = [exact_gain_in_box(image, sign, eps) for image, sign in zip(images, signs(BOTH), strict=True)]
    np.testing.assert_allclose(signs(BOTH) * (result.scores - result.clean_scores), expected, rtol=1e-4)
    assert (result.images == 0).any()  # the box binds, otherwise this tests nothing
    assert (result.images == 1).any()


def test_a_linear_score_in_linf_reaches_the_exact_optimum_where_the_box_is_active():
    images = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(2))
    result = pgd(linear, images, BOTH, norm="linf", eps=0.4, steps=60)
    best = (images + 0.4 * torch.from_numpy(signs(BOTH)).view(-1, 1, 1, 1) * WEIGHTS.sign()).clamp(0, 1)
    np.testing.assert_allclose(result.scores, linear(best.float()).numpy(), rtol=1e-5)


def test_a_distance_reaches_its_worst_case_on_both_sides():
    images = images_around_grey(spread=0.4)
    result = pgd(distance, images, BOTH, norm="l2", eps=0.1, steps=100)
    np.testing.assert_allclose(signs(BOTH) * (result.scores - result.clean_scores), 0.1, rtol=1e-4)


def test_a_random_start_escapes_where_the_gradient_vanishes():
    """At the centre of a distance the gradient is zero: the clean start never moves, a random one does."""
    images = torch.full((1, *SHAPE), 0.5)
    stuck = pgd(distance, images, [0], norm="l2", eps=0.1, steps=10)
    assert stuck.scores[0] == 0.0
    assert stuck.info["zero_gradient_share"] == 1.0
    free = pgd(distance, images, [0], norm="l2", eps=0.1, steps=10, restarts=2)
    assert free.scores[0] == pytest.approx(0.1, rel=1e-4)
    assert free.info["zero_gradient_share"] == 0.5


def two_basins(images: Tensor) -> Tensor:
    """Two maxima in the pixel mean whose order depends on the image: no single restart suits all images."""
    mean = images.mean((1, 2, 3))
    return torch.sin(37 * mean) + 0.1 * linear(images)


def test_the_best_is_kept_for_each_image_and_not_for_the_batch():
    images = images_around_grey(12, spread=0.9)
    labels = [0, 1] * 6
    arguments = {"norm": "l2", "eps": 0.8, "steps": 5, "seed": 3}
    together = pgd(two_basins, images, labels, restarts=4, **arguments)
    alone = [
        pgd(two_basins, images[i : i + 1], labels[i : i + 1], restarts=4, indices=[i], **arguments).scores[0]
        for i in range(12)
    ]
    np.testing.assert_allclose(together.scores, alone, rtol=1e-5)
    # nested: with the same seed, more restarts never do worse for any image, and help some
    fewer = pgd(two_basins, images, labels, restarts=1, **arguments)
    gain = signs(labels) * (together.scores - fewer.scores)
    assert (gain >= -1e-6).all()
    assert (gain > 1e-3).any()


def test_the_best_iterate_is_returned_and_not_the_last():
    """A one-dimensional hat with its top inside the ball: a constant step jumps across it to and fro."""
    visited = []

    def hat(images: Tensor) -> Tensor:
        scores = -(images.mean((1, 2, 3)) - 0.57).abs()
        visited.append(float(scores.detach()[0]))
        return scores

    image = torch.full((1, 1, 1, 1), 0.5)
    result = pgd(hat, image, [0], norm="linf", eps=0.2, steps=10, schedule="constant")
    last_iterate = visited[-2]  # the very last call is the fresh pass over the result
    assert result.scores[0] == pytest.approx(max(visited))
    assert result.scores[0] > last_iterate + 0.01


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], [0, 1, 0]])
def test_normals_are_raised_and_anomalies_lowered_whatever_else_is_in_the_batch(labels):
    images = images_around_grey(3)
    result = pgd(lambda x: x.mean((1, 2, 3)), images, labels, norm="linf", eps="8/255", steps=5)
    moved = (result.images - images).mean((1, 2, 3)).numpy()
    np.testing.assert_allclose(moved, 8 / 255 * signs(labels), rtol=1e-4)
    bounds = result.bounds()
    normal = np.array(labels) == 0
    np.testing.assert_array_equal(bounds.lower, np.where(normal, result.clean_scores, result.scores))
    np.testing.assert_array_equal(bounds.upper, np.where(normal, result.scores, result.clean_scores))
    assert (bounds.upper > bounds.lower).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_results_do_not_depend_on_the_batch_size_or_the_order(norm):
    images, labels = images_around_grey(7), [0, 1, 0, 1, 1, 0, 0]
    arguments = {"norm": norm, "eps": 0.3, "steps": 8, "restarts": 3, "seed": 5}
    whole = pgd(two_basins, images, labels, batch_size=7, **arguments)
    for batch_size in (1, 3):
        split = pgd(two_basins, images, labels, batch_size=batch_size, **arguments)
        np.testing.assert_allclose(split.scores, whole.scores, rtol=1e-5)
        torch.testing.assert_close(split.images, whole.images, rtol=0, atol=1e-5)
    order = [3, 1, 6, 0, 2, 5, 4]
    shuffled = pgd(
        two_basins, images[order], [labels[i] for i in order], batch_size=3, indices=order, **arguments
    )
    np.testing.assert_allclose(shuffled.scores, whole.scores[order], rtol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_eps_zero_returns_the_clean_scores_exactly(norm):
    images = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(4))
    result = pgd(two_basins, images, [0, 1, 0, 1, 0], norm=norm, eps=0, steps=3, restarts=2, batch_size=2)
    np.testing.assert_array_equal(result.scores, result.clean_scores)
    assert torch.equal(result.images, images)


def test_a_score_without_gradient_raises():
    images = images_around_grey(2)
    arguments = {"norm": "l2", "eps": 0.1, "steps": 2}
    with pytest.raises(InputError, match="no gradient"):
        pgd(lambda x: linear(x.detach()), images, [0, 1], **arguments)
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(InputError, match="does not reach"):
        pgd(lambda x: weight * linear(x.detach()), images, [0, 1], **arguments)
    with pytest.raises(InputError, match="NaN or infinite"):
        pgd(lambda x: (x - x.detach()).square().sum((1, 2, 3)).sqrt(), images, [0, 1], **arguments)
    with pytest.raises(InputError, match="returned NaN"):
        pgd(lambda x: linear(x) * math.nan, images, [0, 1], **arguments)
    with pytest.raises(InputError, match="shape"):
        pgd(lambda x: x.mean((2, 3)), images, [0, 1], **arguments)


def test_zero_gradients_are_counted():
    result = pgd(
        lambda x: linear(x.round()) + 0 * x.sum(), images_around_grey(4), [0] * 4, norm="l2", eps=0.1
    )
    assert result.info["zero_gradient_share"] == 1.0
    assert result.info["gradient_evaluations"] == 4 * 50


def test_hidden_randomness_of_a_score_shows_in_the_info():
    generator = torch.Generator().manual_seed(0)

    def noisy(images: Tensor) -> Tensor:
        return linear(images) + torch.randn(len(images), generator=generator)

    images = images_around_grey()
    assert pgd(linear, images, BOTH, norm="l2", eps=0.1).info["recomputed_gap"] < 1e-5
    assert pgd(noisy, images, BOTH, norm="l2", eps=0.1).info["recomputed_gap"] > 0.1


def test_global_random_states_and_module_gradients_are_left_alone():
    network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 4), nn.Tanh(), nn.Linear(4, 1))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    arguments = {"norm": "linf", "eps": 0.1, "steps": 3, "restarts": 3}
    first = pgd(lambda x: network(x)[:, 0], images_around_grey(), BOTH, **arguments)
    second = pgd(lambda x: network(x)[:, 0], images_around_grey(), BOTH, **arguments)
    assert torch.equal(first.images, second.images)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert all(parameter.grad is None for parameter in network.parameters())


def test_it_works_under_no_grad_and_inference_mode():
    expected = pgd(linear, images_around_grey(), BOTH, norm="l2", eps=0.1).scores
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            np.testing.assert_array_equal(
                pgd(linear, images_around_grey(), BOTH, norm="l2", eps=0.1).scores, expected
            )


class Normed(nn.Module):
    """A score whose images are coupled while batch norm trains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def score(self, images: Tensor) -> Tensor:
        return linear(self.norm(images))


def test_batch_norm_in_training_mode_is_refused():
    detector = Normed()
    with pytest.raises(InputError, match="training mode"):
        pgd(detector.score, images_around_grey(), BOTH, norm="l2", eps=0.1, steps=1)
    pgd(detector.eval().score, images_around_grey(), BOTH, norm="l2", eps=0.1, steps=1)


def test_a_curve_never_improves_with_the_radius_and_reuses_what_it_found():
    images, labels = images_around_grey(8, spread=0.9), [0, 1] * 4
    attack = partial(pgd, two_basins, images, labels, norm="l2", steps=4, schedule="constant")
    curve = attack_curve(attack, [0, 0.05, 0.1, 0.4, 1.0, 4.0])
    gains = np.stack([signs(labels) * result.scores for result in curve])
    assert (np.diff(gains, axis=0) >= 0).all()
    np.testing.assert_array_equal(curve[0].scores, curve[0].clean_scores)
    with pytest.raises(InputError, match="ascending"):
        attack_curve(attack, [0.1, 0.05])
    with pytest.raises(InputError, match="other images"):
        pgd(linear, images[:2], [0, 1], norm="l2", eps=1.0, previous=curve[1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": [0, 2, 0, 1, 1, 0]}, "labels"),
        ({"labels": [0, 1]}, "one label an image"),
        ({"steps": 0}, "steps"),
        ({"restarts": 0}, "restarts"),
        ({"batch_size": 0}, "batch_size"),
        ({"schedule": "linear"}, "cosine, constant"),
        ({"indices": [0, 1, 2, 3, 4, -5]}, "indices"),
        ({"images": images_around_grey() + 1}, "need \\[0, 1\\]"),
    ],
)
def test_inputs_out_of_range_are_refused_by_name(changes, words):
    arguments = {"images": images_around_grey(), "labels": BOTH, "norm": "l2", "eps": 0.1} | changes
    with pytest.raises(InputError, match=words):
        pgd(linear, **arguments)


def test_step_sizes_cover_the_ball():
    assert step_sizes(0.1, 100, "constant") == [0.0025] * 100
    cosine = step_sizes(0.1, 100, "cosine")
    assert cosine[0] == pytest.approx(0.025)
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[-1] < 1e-4
    assert all(sum(step_sizes(1.0, steps, "cosine")) >= 2.5 - 1e-9 for steps in range(1, 60))


def test_a_curve_goes_on_only_from_a_result_on_these_images_and_this_detector():
    images, labels = images_around_grey(), [0, 1] * 3
    options = {"norm": "l2", "steps": 3}
    before = pgd(linear, images, labels, eps=0.1, **options)
    with pytest.raises(InputError, match="other images"):
        pgd(linear, images.flip(0), labels, eps=0.2, **options, previous=before)
    with pytest.raises(InputError, match="other scores"):
        pgd(lambda x: 2.0 * linear(x), images, labels, eps=0.2, **options, previous=before)
    better = replace(before, scores=before.scores + 1.0)
    with pytest.raises(InputError, match="other scores"):
        pgd(linear, images, labels, eps=0.2, **options, previous=better)
    after = pgd(linear, images, labels, eps=0.2, **options, previous=before)
    np.testing.assert_array_equal(after.clean_scores, before.clean_scores)
