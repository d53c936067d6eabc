from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from certify.checks import InputError
from diffad import load_detector
from diffad.backbones import Backbone, ResNet
from diffad.backbones.projections import random_projection
from diffad.baselines.pixel_nn import PixelNN
from diffad.zarnd import Zarnd

SHAPE = (3, 16, 16)


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def backbone() -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet(width=4, blocks=(1, 1))
    return Backbone(network, arch="resnet", arguments={"width": 4, "blocks": [1, 1]}, resolution=16)


TRAIN, TEST = images(50, 0), images(12, 1)


def fitted(**options: object) -> Zarnd:
    return Zarnd.from_backbone(backbone(), **options).fit(TRAIN)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_score_is_the_sum_of_the_nearest_distances(k, normalize, squared):
    detector = fitted(k=k, normalize=normalize, squared=squared)
    bank, queries = (detector.features(part).double().numpy() for part in (TRAIN, TEST))
    distances = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank).kneighbors(queries)[0]
    expected = (distances**2 if squared else distances).sum(1)
    np.testing.assert_allclose(detector.score(TEST).numpy(), expected, rtol=1e-5)


def test_squared_distances_rank_differently():
    """Distances 0 and 3 against 2 and 2: the paper's sum and the code's disagree about which is worse."""
    one, other = torch.tensor([[0.0, 3.0]]), torch.tensor([[2.0, 2.0]])
    paper, code = Zarnd(squared=False), Zarnd(squared=True)
    assert paper._sum(one) < paper._sum(other)
    assert code._sum(one) > code._sum(other)


def test_normalised_features_have_length_one():
    torch.testing.assert_close(fitted(normalize=True).features(TEST).norm(dim=1), torch.ones(len(TEST)))


def test_a_sweep_over_k_agrees_with_detectors_of_each_k():
    found = fitted(k=1).score_sweep(TEST, [1, 2, 5], batch_size=5)
    for k, scores in found.items():
        np.testing.assert_allclose(scores, fitted(k=k).score(TEST).numpy(), rtol=1e-6)


@pytest.mark.parametrize("ks", [[], [0, 1], [1, 21]])
def test_a_sweep_over_impossible_k_is_named(ks):
    detector = fitted(k=1)
    with pytest.raises(InputError, match=rf"got ks .* for a bank of {len(detector.bank)}; need"):
        detector.score_sweep(TEST, [k if k < 21 else len(detector.bank) + 1 for k in ks])


def test_the_gradient_is_that_of_the_score_with_fresh_neighbours():
    """Along the gradient the score rises as the gradient says; the neighbours are those of the moved point."""
    detector = fitted(k=2)
    detector.double()
    points = TEST[:4].double().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(points).sum(), points)
    step = 1e-6 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    with torch.no_grad():
        rise = (detector.score(points + step) - detector.score(points - step)) / 2e-6
    torch.testing.assert_close(rise, gradient.flatten(1).norm(dim=1), rtol=1e-4, atol=0.0)


def test_a_coreset_keeps_its_size_and_bounds_the_change_of_a_distance():
    whole, small = fitted(k=1), fitted(k=1, bank_size=20)
    assert len(small.bank) == 20 == small.fit_info["bank"]
    change = small.score(TEST) - whole.score(TEST)
    assert float(change.min()) >= -1e-6
    assert 0.0 < float(change.max()) <= small.fit_info["cover"] + 1e-6


def test_the_change_that_a_coreset_makes_is_measured():
    detector = fitted(k=2, bank_size=20)
    info = detector.fit_info
    left = [
        i for i in range(len(TRAIN)) if not bool((detector.features(TRAIN)[i] == detector.bank).all(1).any())
    ]
    assert len(left) == 30
    whole = fitted(k=3).neighbour_distances(TRAIN[left], 3)[:, 1:].sum(1)
    change = detector.score(TRAIN[left]).double() - whole
    assert info["coreset_change_mean"] == pytest.approx(float(change.mean()), abs=1e-6)
    assert info["coreset_change_max"] == pytest.approx(float(change.max()), abs=1e-6)
    assert info["score_mean"] == pytest.approx(float(whole.mean()), abs=1e-6)
    assert "coreset_change_mean" not in fitted(k=2).fit_info


@pytest.mark.parametrize("index", ["faiss_hnsw", "faiss_ivf"])
def test_an_index_raises_a_score_or_leaves_it_and_says_how_much_it_finds(index, tmp_path):
    pytest.importorskip("faiss")
    exact = Zarnd.from_backbone(backbone(), k=3).fit(images(600, 2))
    detector = Zarnd.from_backbone(backbone(), k=3, index=index).fit(images(600, 2))
    assert 0.5 < detector.fit_info["index_recall"] <= 1.0
    assert 0.0 <= detector.fit_info["index_change_mean"] <= detector.fit_info["index_change_max"]
    scores = detector.score(TEST)
    assert bool((scores >= exact.score(TEST) * (1 - 1e-6)).all())
    assert detector.lipschitz is None
    detector.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".md", ".safetensors"}
    assert torch.equal(load_detector(tmp_path).score(TEST), scores)
    with pytest.raises(InputError, match="no score interval"):
        detector.score_interval(TEST)


def test_several_layers_are_joined_and_unknown_ones_refused():
    detector = fitted(layers=("layer1", "features"))
    names = list(backbone().layers(TEST))
    assert detector.bank.shape[1] == backbone().layers(TEST)["layer1"].shape[1] + backbone().dim
    with pytest.raises(InputError, match=f"unknown layers \\['layer9'\\], allowed are features, {names[0]}"):
        fitted(layers=("layer9",))


def test_duplicates_and_test_images_in_the_bank_are_named():
    detector = Zarnd.from_backbone(backbone(), k=1).fit(torch.cat([TRAIN, TRAIN[:3]]))
    assert detector.fit_info["duplicates"] == 3
    assert detector.in_bank(torch.cat([TEST, TRAIN[:2]])) == [12, 13]


def test_features_that_are_all_the_same_are_refused():
    dead = backbone()
    with torch.no_grad():
        dead.network.conv1.weight.zero_()
    with pytest.raises(InputError, match="all images the same feature"):
        Zarnd.from_backbone(dead).fit(TRAIN)


def test_a_test_image_is_known_again_in_another_batch():
    detector = Zarnd.from_backbone(backbone(), k=1).fit(TRAIN)
    found = [detector.in_bank(TRAIN[i : i + 1]) for i in range(10)]
    assert found == [[0]] * 10
    assert detector.in_bank((TRAIN[:5] + 0.01).clamp(0, 1)) == []


@pytest.mark.parametrize("k", [1, 3])
def test_the_interval_of_linear_features_holds_the_score_of_exact_arithmetic(k):
    """Fractions: no rounding at all but in the square roots, which integers enclose."""
    side, few = 3, images(8, 3)[:, :1, :3, :3].contiguous()
    detector = Zarnd.from_backbone(random_projection(4, side, 1, seed=1), k=k).fit(few[:5])
    lower, upper = detector.score_interval(few)
    assert detector.backbone is not None
    weight = [[Fraction(float(w)) for w in row] for row in detector.backbone.network.weight.detach()]
    bank = [[Fraction(float(b)) for b in row] for row in detector.bank]
    for image, low, high in zip(few, lower, upper, strict=True):
        pixels = [Fraction(float(value)) for value in image.flatten()]
        feature = [sum(w * x for w, x in zip(row, pixels, strict=True)) for row in weight]
        squares = sorted(sum((f - b) ** 2 for f, b in zip(feature, point, strict=True)) for point in bank)
        floors = [Fraction(isqrt(int(square * 10**60)), 10**30) for square in squares[:k]]
        assert Fraction(low) <= sum(floors) + k * Fraction(1, 10**30)
        assert sum(floors) <= Fraction(high)
    assert float((upper - lower)[5:].max()) < 1e-9  # of images that are not in the bank


def test_linear_features_give_k_as_the_constant_and_other_scores_none():
    gray = images(20, 4)[:, :1].contiguous()

    def constant(shape_of: Tensor = gray, **options: object) -> float | None:
        return Zarnd.from_backbone(random_projection(9, 16, 1), **options).fit(shape_of).lipschitz

    assert constant(k=1) == 1.0
    assert constant(k=3) == 3.0
    assert constant(k=3, bank_size=5) == 3.0
    assert constant(squared=True) is constant(normalize=True) is None
    assert fitted().lipschitz is Zarnd().lipschitz is None
    assert Zarnd.from_backbone(random_projection(9, 16, 1)).lipschitz is None


def test_the_constant_of_a_folder_is_that_of_its_weights(tmp_path):
    gray = images(20, 4)[:, :1].contiguous()
    network = random_projection(9, 16, 1)
    for scale, wanted in ((5.0, 10.0), (float("nan"), None)):
        detector = Zarnd.from_backbone(network, k=2).fit(gray)
        with torch.no_grad():
            network.network.weight.mul_(scale)
        detector.save_pretrained(tmp_path / f"{scale}")
        loaded = load_detector(tmp_path / f"{scale}").lipschitz
        assert loaded is None if wanted is None else loaded == pytest.approx(wanted, abs=1e-8)


def test_linear_features_of_enough_components_rank_as_pixels_do():
    gray = images(30, 5)[:, :1, :6, :6].contiguous()
    detector = Zarnd.from_backbone(random_projection(36, 6, 1), k=2).fit(gray[:20])
    np.testing.assert_allclose(
        detector.score_array(gray[20:]), PixelNN(k=2).fit(gray[:20]).score_array(gray[20:]), rtol=1e-6
    )


def test_the_surrogate_of_the_published_attack_is_the_distance_to_the_mean():
    detector = fitted()
    expected = (detector.features(TEST) - detector.features(TRAIN).mean(0)).square().sum(1)
    torch.testing.assert_close(detector.surrogates()["mean_feature"](TEST), expected)


def test_the_folder_loads_elsewhere_without_training_data(tmp_path):
    detector = fitted(k=3, bank_size=10)
    detector.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / "moved")
    torch.testing.assert_close(load_detector(tmp_path / "moved").score(TEST), detector.score(TEST))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, "k = 0"),
        ({"bank_size": 1, "k": 2}, "bank_size = 1 for k = 2"),
        ({"bank_size": 0, "k": 2}, "bank_size = 0"),
        ({"layers": ()}, "no layers"),
        ({"index": "annoy"}, "index: got 'annoy', allowed are exact, faiss_hnsw, faiss_ivf"),
    ],
)
def test_arguments_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        Zarnd(**options)


def test_a_bank_smaller_than_k_and_a_missing_backbone_are_refused():
    with pytest.raises(InputError, match="got 1 training images, need at least 2"):
        Zarnd.from_backbone(backbone(), k=2).fit(TRAIN[:1])
    with pytest.raises(InputError, match="has no backbone"):
        Zarnd().fit(TRAIN)
