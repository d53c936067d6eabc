import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from certify.checks import InputError
from diffad.backbones import Backbone, load_backbone
from diffad.backbones.linear import LinearProjection
from diffad.backbones.projections import principal_projection, random_projection


def images(count: int, seed: int = 0, channels: int = 1) -> Tensor:
    """Smooth images, so that components differ in weight."""
    noise = torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(seed))
    return noise.cumsum(2).cumsum(3) / 36


def weight(backbone: Backbone) -> Tensor:
    network = backbone.network
    assert isinstance(network, LinearProjection)
    return network.weight.detach()


@pytest.mark.parametrize("dim", [1, 7, 36])
def test_random_rows_are_orthonormal_and_follow_their_seed(dim):
    rows = weight(random_projection(dim, 6, 1, seed=3))
    torch.testing.assert_close(rows @ rows.T, torch.eye(dim, dtype=torch.float64), rtol=0, atol=1e-10)
    assert float(torch.linalg.matrix_norm(rows, 2)) <= 1.0
    assert torch.equal(rows, weight(random_projection(dim, 6, 1, seed=3)))
    assert not torch.equal(rows, weight(random_projection(dim, 6, 1, seed=4)))


def test_features_are_the_product_in_double_precision_whatever_the_images():
    backbone, x = random_projection(5, 6, 3), images(4, channels=3)
    expected = x.double().flatten(1) @ weight(backbone).T
    torch.testing.assert_close(backbone.features(x.double()), expected, rtol=0, atol=1e-12)
    assert backbone.features(x).dtype == torch.float32
    assert backbone.layers(x) == {}


def test_components_are_those_of_scikit_learn():
    x = images(100)
    backbone = principal_projection(x, 4, {"data": "another set"})
    reference = PCA(4, svd_solver="full").fit(x.double().flatten(1).numpy())
    components = torch.from_numpy(reference.components_)
    torch.testing.assert_close(
        (weight(backbone) @ components.T).abs(), torch.eye(4).double(), rtol=0, atol=1e-9
    )
    assert backbone.facts["explained_variance"] == pytest.approx(reference.explained_variance_ratio_.sum())
    assert (backbone.facts["data"], backbone.facts["images"]) == ("another set", 100)


def test_the_constant_holds_is_attained_and_counts_the_normalisation():
    backbone = random_projection(5, 6, 1)
    constant = backbone.lipschitz((1, 6, 6))
    assert constant == 1.0
    along = weight(backbone)[:1].view(1, 1, 6, 6)
    moved = backbone.features(along) - backbone.features(torch.zeros_like(along))
    assert float(moved.norm()) == pytest.approx(float(along.norm()), rel=1e-9)
    scaled = Backbone(backbone.network, arch="linear", arguments={}, std=(0.25,), mean=(0.5,), resolution=6)
    assert scaled.lipschitz((1, 6, 6)) == pytest.approx(4.0, abs=1e-8)
    assert 4.0 * float(torch.linalg.matrix_norm(weight(backbone), 2)) <= scaled.lipschitz((1, 6, 6))


def test_nothing_is_proved_for_images_that_are_changed_on_the_way_in():
    colour = random_projection(5, 6, 3)
    assert colour.lipschitz((3, 6, 6)) == 1.0
    assert colour.lipschitz((1, 6, 6)) is colour.lipschitz((3, 12, 12)) is None


def test_the_folder_gives_the_same_features(tmp_path):
    backbone = principal_projection(images(50), 3)
    backbone.save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path)
    assert torch.equal(loaded.features(images(3, 1)), backbone.features(images(3, 1)))
    assert loaded.lipschitz((1, 6, 6)) == backbone.lipschitz((1, 6, 6)) == 1.0


def test_what_gives_no_projection_is_named():
    with pytest.raises(InputError, match="dim 37, side 6, in_channels 1"):
        random_projection(37, 6, 1)
    with pytest.raises(InputError, match="got 4 images 6 x 6 for dim 4"):
        principal_projection(images(4), 4)
    with pytest.raises(InputError, match="vary along fewer than 3 directions"):
        principal_projection(images(2).repeat(5, 1, 1, 1), 3)
    with pytest.raises(InputError, match=r"got images \(1, 6, 6\), need \(1, 4, 4\)"):
        Backbone(LinearProjection(2, 4, 1), arch="linear", arguments={}, resolution=6).features(images(1))
    with pytest.raises(InputError, match="no classification head"):
        random_projection(2, 6, 1).logits(images(1))
