import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from certify.checks import InputError
from diffad.cobra.losses import (
    CONTRASTIVE,
    LOSSES,
    PAIRED,
    LossOptions,
    check_losses,
    log_numerators,
    pair_figures,
    total_loss,
)
from diffad.cobra.views import Views

OPTIONS = LossOptions()
MANY = {"temperature": 0.3, "floor": 0.05, "opposite_weight": 0.7}


def two_classes(images: int) -> Tensor:
    return torch.arange(images) // (images // 2)


def random_views(views: int = 3, images: int = 6, *, seed: int = 0, labels: Tensor | None = None) -> Views:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(views, images, 5, generator=generator, dtype=torch.float64)
    logits = torch.randn(views * images, 2, generator=generator, dtype=torch.float64)
    return Views.of(embeddings, two_classes(images) if labels is None else labels, logits)


def by_hand(name: str, views: Views, options: LossOptions) -> float:
    """The loss of one pair of rows at a time, straight from its formula."""
    s, n, t = views.similarities.tolist(), views.images, options.temperature
    rows = range(n * views.views)
    if name == "classification":
        scores = views.logits.tolist()
        return sum(
            math.log(sum(math.exp(one) for one in scores[a])) - scores[a][int(views.labels[a % n])]
            for a in rows
        ) / len(rows)
    found = []
    for a in rows:
        others = [r for r in rows if r != a]
        z = sum(math.exp(s[a][r] / t) for r in others)
        opposite = (a % n + n // 2) % n
        attracted = [r for r in others if r % n == a % n]
        if name == "supcon":
            attracted = [r for r in others if views.labels[r % n] == views.labels[a % n]]
        repelled = [math.log1p(math.exp(s[a][r] / t)) for r in rows if r % n == opposite]
        terms = []
        for p in attracted:
            numerator = math.exp(s[a][p] / t)
            if name == "paper_clamped":
                numerator = max(numerator - math.exp(s[a][p // n * n + opposite] / t), options.floor)
            terms.append(-math.log(numerator / z))
        pull, push = sum(terms) / len(terms), sum(repelled) / len(repelled)
        found.append({"opposite": push, "additive": pull + options.opposite_weight * push}.get(name, pull))
    return sum(found) / len(found)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("options", [OPTIONS, LossOptions(**MANY)])
def test_each_loss_is_its_formula(name: str, views: int, options: LossOptions) -> None:
    batch = random_views(views)
    assert float(LOSSES[name](batch, options)) == pytest.approx(by_hand(name, batch, options), rel=1e-12)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - PAIRED))
def test_losses_without_pairs_take_the_four_classes_of_rotations(name: str) -> None:
    labels = torch.arange(4).repeat_interleave(2)
    batch = random_views(3, 8, labels=labels)
    scores = torch.randn(24, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = Views(batch.similarities, labels, scores)
    assert float(LOSSES[name](batch, OPTIONS)) == pytest.approx(by_hand(name, batch, OPTIONS), rel=1e-12)


def test_two_views_give_the_loss_of_simclr() -> None:
    generator = torch.Generator().manual_seed(3)
    embeddings = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    unit = F.normalize(embeddings.flatten(0, 1), dim=1)
    scores = (unit @ unit.T / 0.5).fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(scores, torch.arange(8).roll(4))
    torch.testing.assert_close(LOSSES["nt_xent"](Views.of(embeddings, two_classes(4)), OPTIONS), expected)


def test_the_difference_of_equation_2_at_the_pairs_of_the_note() -> None:
    """(0.9, -0.5) is finite; (0.5, 0.5), minus infinity unclamped, and (0.1, 0.6), undefined, come to the floor."""
    for positive, opposed, clamped in ((0.9, -0.5, 0.0), (0.5, 0.5, 1.0), (0.1, 0.6, 1.0)):
        similarities = torch.eye(4, dtype=torch.float64)
        similarities[[0, 1, 2, 3], [2, 3, 0, 1]] = positive
        similarities[[0, 1, 2, 3], [3, 2, 1, 0]] = opposed
        similarities[[0, 1, 2, 3], [1, 0, 3, 2]] = opposed
        batch = Views(similarities, two_classes(2))
        logs, mask = log_numerators(batch, OPTIONS)
        expected = max(math.exp(positive / 0.5) - math.exp(opposed / 0.5), 0.01)
        torch.testing.assert_close(logs.exp(), torch.full_like(logs, expected))
        assert bool((mask == clamped).all())
        figures = pair_figures(batch, OPTIONS)
        assert float(figures["clamped_share"]) == clamped
        least = math.exp(positive / 0.5) - math.exp(opposed / 0.5)
        assert float(figures["least_numerator"]) == pytest.approx(least)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.one_of(st.sampled_from([-1.0, 1.0, 0.0]), st.floats(-1, 1, width=32)), min_size=144, max_size=144
    ),
    temperature=st.sampled_from([0.02, 0.1, 0.5, 5.0]),
    floor=st.sampled_from([1e-6, 1e-2, 1.0, 100.0]),
)
def test_value_and_gradient_are_finite_for_every_similarity(
    values: list[float], temperature: float, floor: float
) -> None:
    options = LossOptions(temperature, floor)
    similarities = torch.tensor(values).view(12, 12).requires_grad_()
    views = Views(similarities, two_classes(4), torch.zeros(12, 2))
    for name in sorted(CONTRASTIVE):
        value = LOSSES[name](views, options)
        (gradient,) = torch.autograd.grad(value, similarities)
        assert math.isfinite(float(value.detach())), name
        assert bool(torch.isfinite(gradient).all()), name
    assert all(math.isfinite(float(one)) for one in pair_figures(views, options).values())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=36, max_size=36))
def test_bounds(values: list[float]) -> None:
    views = Views(torch.tensor(values, dtype=torch.float64).view(6, 6), two_classes(2))
    rows = 5
    for name in ("nt_xent", "supcon"):  # each term lies between those of the two extreme similarities
        assert -1e-9 <= float(LOSSES[name](views, OPTIONS)) <= math.log(1 + (rows - 1) * math.exp(4)) + 1e-9
    push = float(LOSSES["opposite"](views, OPTIONS))
    assert math.log1p(math.exp(-2)) - 1e-9 <= push <= math.log1p(math.exp(2)) + 1e-9
    assert float(LOSSES["additive"](views, OPTIONS)) >= -1e-9
    assert (
        -1e-9 <= float(LOSSES["paper_clamped"](views, OPTIONS)) <= math.log(rows) + 2 + math.log(100) + 1e-9
    )


def adversarial_starts() -> dict[str, Tensor]:
    """Embeddings (views, images, d): all the same, opposites closer than positives, antipodal views, tiny ones."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(3, 8, 4, generator=generator)
    same = torch.ones(3, 8, 4)
    pairs = draw[:, :4].repeat(1, 2, 1)
    crossed = pairs + torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1) * 5 * draw[:1]
    return {
        "same": same,
        "opposites coincide": pairs,
        "views apart": crossed,
        "antipodal views": draw[:1] * torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1),
        "tiny": 1e-6 * draw,
    }


@pytest.mark.parametrize("name", ["paper_clamped", "additive"])
@pytest.mark.parametrize("start", adversarial_starts())
def test_200_steps_from_an_adversarial_start_stay_finite(name: str, start: str) -> None:
    embeddings = adversarial_starts()[start].clone().requires_grad_()
    optimizer = torch.optim.SGD([embeddings], lr=0.1, momentum=0.9)
    values = []
    for _ in range(200):
        value = LOSSES[name](Views.of(embeddings, two_classes(8)), OPTIONS)
        optimizer.zero_grad()
        value.backward()
        assert embeddings.grad is not None
        assert bool(torch.isfinite(embeddings.grad).all())
        torch.nn.utils.clip_grad_norm_([embeddings], 1.0)
        optimizer.step()
        values.append(float(value.detach()))
    assert all(map(math.isfinite, values))
    assert min(values) >= 0.0  # the documented bound
    assert values[-1] <= values[0] + 1e-5
    assert bool(torch.isfinite(embeddings).all())


def test_additive_separates_pairs_whose_numerator_has_lost_its_gradient() -> None:
    """Where opposites coincide, eq. (2) with a floor has no pull between positives; the additive form pushes on."""
    similarities = torch.full((4, 4), 0.5, requires_grad=True)
    views = Views(similarities, two_classes(2))
    logs, mask = log_numerators(views, OPTIONS)
    assert bool(mask.all())
    assert not logs.requires_grad or not bool(torch.autograd.grad(logs.sum(), similarities)[0].any())
    (gradient,) = torch.autograd.grad(LOSSES["additive"](views, OPTIONS), similarities)
    assert bool((gradient[[0, 1, 2, 3], [1, 0, 3, 2]] > 0).all())  # descent lowers them
    assert bool((gradient[[0, 1, 2, 3], [2, 3, 0, 1]] < 0).all())  # and raises those of positives


def test_the_total_is_the_weighted_sum_of_the_table() -> None:
    batch = random_views()
    weights = {"paper_clamped": 1.0, "classification": 0.5}
    expected = LOSSES["paper_clamped"](batch, OPTIONS) + 0.5 * LOSSES["classification"](batch, OPTIONS)
    torch.testing.assert_close(total_loss(batch, weights, OPTIONS), expected)


def test_length_and_scale_of_embeddings_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    a, b = Views.of(draw, two_classes(4)), Views.of(3.0 * draw, two_classes(4))
    torch.testing.assert_close(a.similarities, b.similarities)
    assert Views.of(draw.half(), two_classes(4)).similarities.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: LossOptions(temperature=0.0), "temperature: got 0.0"),
        (lambda: LossOptions(floor=0.0), "floor: got 0.0"),
        (lambda: LossOptions(opposite_weight=-1.0), "opposite_weight: got -1.0"),
        (lambda: check_losses({}), "losses: got none"),
        (lambda: check_losses({"cobra": 1.0}), "losses: got 'cobra', allowed are nt_xent"),
        (lambda: check_losses({"nt_xent": 0.0}), "weight of nt_xent: got 0.0"),
        (lambda: Views(torch.eye(4), two_classes(4)), "got 4 rows of 4 images"),
        (lambda: Views(torch.eye(8), two_classes(4), torch.zeros(3, 2)), "class scores of 3 rows"),
        (lambda: Views(torch.eye(8), torch.tensor([0, 1, 0, 1])).opposites(), "need b normal images"),
        (lambda: Views(torch.eye(6), torch.tensor([0, 0, 1])).opposites(), "need b normal images"),
        (lambda: LOSSES["classification"](Views(torch.eye(8), two_classes(4)), OPTIONS), "no class scores"),
    ],
)
def test_what_cannot_be_used_is_named(change, words: str) -> None:
    with pytest.raises(InputError, match=words):
        change()
