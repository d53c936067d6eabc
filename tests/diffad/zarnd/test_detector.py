import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from certify.checks import InputError
from diffad import load_detector
from diffad.backbones import Backbone, ResNet
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
