import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from certify.smoothing import SmoothedDetector
from diffad.attacks import Material, ThreatModel, as_target, attack
from diffad.attacks.features import GREYS, NEAREST, WORST, _distances, complete_references
from diffad.attacks.smoothed import SmoothedTarget

LABELS = [0, 1, 0, 1, 0, 1]
SIGNS = np.array([1.0, -1.0] * 3)
SHAPE = (1, 4, 4)


def valleys(images: Tensor) -> Tensor:
    """High far away beyond a ring of low scores: no gradient at the clean image leads there."""
    mean = images.mean((1, 2, 3))
    return torch.cos(25 * mean) + 4 * (mean > 0.9) * (mean - 0.9)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_a_far_peak_is_reached_only_from_a_reference(images):
    peak = torch.full((1, *SHAPE), 1.0)
    arguments = {"norm": "linf", "eps": 1.0, "steps": 5}
    material = Material(references=torch.cat([images, peak]))
    result = attack(valleys, images, LABELS, method="feature_target", material=material, **arguments)
    assert (result.scores[::2] >= float(valleys(peak)[0])).all()
    plain = attack(valleys, images, LABELS, method="pgd", **arguments)
    assert (plain.scores[::2] < float(valleys(peak)[0])).any()


def test_what_is_kept_is_at_least_as_bad_as_every_reference_within_the_ball(images):
    references = torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(1))
    material = Material(references=references)
    result = attack(
        valleys, images, LABELS, norm="linf", eps=1.0, method="feature_target", steps=2, material=material
    )
    greys = torch.linspace(0, 1, 11).view(-1, 1, 1, 1).expand(-1, *SHAPE)
    known = valleys(torch.cat([references, images, greys])).numpy()
    floor = np.where(SIGNS > 0, known[:30].max(), known[:30].min())
    floor = SIGNS * np.maximum(SIGNS * floor, SIGNS * np.where(SIGNS > 0, known[36:].max(), known[36:].min()))
    assert (SIGNS * result.scores >= SIGNS * floor - 1e-6).all()


def test_the_starts_are_the_nearest_on_the_other_side_and_the_worst_projected(images):
    """Of dark and bright flat references a dark image is raised from the least bright of the bright ones."""
    levels = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.95])
    references = levels.view(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous()
    clean, visited = torch.full((1, *SHAPE), 0.25), []

    def score(points: Tensor) -> Tensor:
        visited.append(points.detach().mean((1, 2, 3)).tolist())
        return points.mean((1, 2, 3))

    material = Material(references=references, reference_scores=levels.double().numpy())
    attack(score, clean, [0], norm="linf", eps=0.5, method="feature_target", steps=1, material=material)
    starts = [means[0] for means in visited if len(means) == 1][1 : 1 + NEAREST + WORST]
    nearest, worst = starts[:NEAREST], starts[NEAREST:]
    # the greys 0, .1, ..., 1 are references too: the median of all is .5
    np.testing.assert_allclose(nearest, [0.6, 0.6, 0.7, 0.7], atol=1e-6)
    np.testing.assert_allclose(worst, [0.75] * WORST, atol=1e-6)  # 1, .95, .9, .8 at most eps away


def test_nearest_is_meant_in_the_features_that_are_given():
    """Features that bend back bring the brightest image close to the dark one."""
    levels = torch.linspace(0.55, 0.95, 9)
    references = levels.view(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous()
    clean, first = torch.full((1, *SHAPE), 0.5), {}
    for name, features in {"pixels": None, "curved": lambda x: (x - 0.5) * (x - 0.96)}.items():
        visited: list[float] = []

        def score(points: Tensor, visited: list[float] = visited) -> Tensor:
            visited.append(float(points.detach().mean()))
            return points.mean((1, 2, 3))

        material = Material(
            references=references, reference_scores=levels.double().numpy(), features=features
        )
        attack(score, clean, [0], norm="linf", eps=0.5, method="feature_target", steps=1, material=material)
        first[name] = visited[2]
    assert first == pytest.approx({"pixels": 0.7, "curved": 0.95})


def test_more_restarts_start_from_the_next_best_references(images):
    arguments = {"norm": "l2", "eps": 1.0, "method": "feature_target", "steps": 4}
    one = attack(valleys, images, LABELS, **arguments)
    many = attack(valleys, images, LABELS, restarts=4, **arguments)
    assert (SIGNS * (many.scores - one.scores) >= -1e-6).all()
    assert many.info["score_queries"] == 6 * 4 * (NEAREST + WORST + 2)
    assert many.info["gradient_evaluations"] == 6 * 4 * 4


def test_a_larger_radius_goes_on_from_the_point_of_a_smaller_one():
    """Flat images score 0 and have no gradient: no reference leads anywhere, what a smaller radius found does."""
    flat = torch.full((1, *SHAPE), 0.5)

    def contrast(points: Tensor) -> Tensor:
        return points.flatten(1).var(1)

    arguments = {"norm": "l2", "method": "feature_target", "steps": 10}
    small = attack(contrast, flat, [0], norm="l2", eps=0.1, method="noise", steps=2)
    alone = attack(contrast, flat, [0], eps=0.2, **arguments)
    found = attack(contrast, flat, [0], eps=0.2, previous=small, **arguments)
    assert alone.scores[0] == pytest.approx(0, abs=1e-12)
    assert found.scores[0] == pytest.approx(0.2**2 / (flat.numel() - 1), rel=0.01)


def test_under_noise_the_start_is_chosen_by_more_draws_than_a_step_has():
    """Of nearly equal references one draw a step ranks hardly better than chance; the draws that judge do."""
    levels = torch.linspace(0.70, 0.73, 4)
    references = levels.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    clean = torch.full((20, 1, 2, 2), 0.5)

    def flat(points: Tensor) -> Tensor:
        return points.mean((1, 2, 3)).clamp(max=0.725).detach() + 0 * points.sum((1, 2, 3))

    smoothed = SmoothedDetector(flat, sigma=0.05, n=400, batch_size=100, smoothing="input")
    target = SmoothedTarget(smoothed, n_select=400)
    material = Material(references=references, reference_scores=levels.double().numpy())
    arguments = {"norm": "linf", "eps": 1.0, "steps": 1, "eot": 1, "material": material}
    found = attack(target, clean, [0] * 20, method="feature_target", **arguments)
    chosen = found.images.mean((1, 2, 3))
    assert (chosen > 0.72).float().mean() >= 0.9


def test_results_do_not_depend_on_the_batch(images):
    arguments = {"norm": "l2", "eps": 1.0, "method": "feature_target", "steps": 4, "restarts": 2}
    whole = attack(valleys, images, LABELS, batch_size=12, **arguments)
    split = attack(valleys, images, LABELS, batch_size=5, **arguments)
    np.testing.assert_allclose(whole.scores, split.scores, rtol=1e-5)
    assert whole.trace.shape == split.trace.shape == (6, NEAREST + WORST + 4 + 2)


def test_the_attacked_images_and_flat_greys_are_the_default(images):
    target = as_target(valleys)
    clean_scores = target.scores(images, range(6), "evaluate")
    material = complete_references(Material(), target, images, clean_scores)
    assert torch.equal(material.references[:6], images)
    np.testing.assert_array_equal(material.reference_scores[:6], clean_scores)
    assert len(material.references) == len(material.reference_scores) == 6 + GREYS
    assert (material.references[6:].flatten(1).std(1) == 0).all()


def test_a_noisy_score_is_attacked_from_references_too(images):
    smoothed = SmoothedDetector(valleys, sigma=0.1, n=40, batch_size=50, smoothing="input")
    result = attack(smoothed, images, LABELS, norm="l2", eps=1.0, method="feature_target", steps=3, eot=4)
    ThreatModel("l2", 1.0).check(result.images, images)
    assert (SIGNS * (result.scores - result.clean_scores) >= 0).all()
    assert (SIGNS * (result.scores - result.clean_scores) > 0.01).any()


@pytest.mark.parametrize(
    ("material", "words"),
    [
        (Material(references=torch.rand(3, 1, 5, 5)), "references: got shape"),
        (Material(references=torch.rand(3, *SHAPE) + 1), "references: values"),
        (
            Material(references=torch.rand(3, *SHAPE), reference_scores=np.ones(2)),
            "reference_scores: got shape",
        ),
        (Material(references=torch.rand(1, *SHAPE), reference_scores=np.array([np.nan])), "one finite score"),
        (Material(reference_scores=np.ones(2)), "without references"),
    ],
)
def test_references_that_cannot_be_used_are_refused(images, material, words):
    with pytest.raises(InputError, match=words):
        attack(valleys, images, LABELS, norm="l2", eps=0.1, method="feature_target", material=material)


def test_references_are_embedded_and_compared_a_chunk_at_a_time(monkeypatch):
    shown, cdist = [], torch.cdist

    def counted(first: Tensor, second: Tensor, **options: object) -> Tensor:
        shown.append(len(second))
        return cdist(first, second, **options)

    monkeypatch.setattr(torch, "cdist", counted)
    generator = torch.Generator().manual_seed(2)
    clean, references = (torch.rand(count, *SHAPE, generator=generator) for count in (3, 150))
    found = _distances(clean, references, None)
    assert max(shown) <= 64
    exact = np.linalg.norm((clean[:, None] - references).double().flatten(2).numpy(), axis=2)
    np.testing.assert_allclose(found, exact, rtol=1e-6)
