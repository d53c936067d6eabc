import pytest
import torch
import torchvision.models

from certify.checks import InputError
from diffad.backbones import ResNet


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))])
def test_the_imagenet_one_is_that_of_torchvision(name: str, blocks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None, num_classes=7).eval()
    ours = ResNet(blocks=blocks, stem="imagenet", classes=7).eval()
    for tensor in theirs.state_dict().values():  # statistics that a wrong name could not hide behind
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_sizes_follow_width_and_blocks() -> None:
    network = ResNet(width=6, blocks=(1, 2, 1), classes=0, in_channels=1).eval()
    feature, maps = network.encode(torch.rand(2, 1, 32, 32))
    assert feature.shape == (2, 24)
    assert [tuple(part.shape[1:]) for part in maps.values()] == [(6, 32, 32), (12, 16, 16), (24, 8, 8)]
    assert len(network.layer2) == 2


@pytest.mark.parametrize("wrong", [{"width": 0}, {"blocks": ()}, {"blocks": (1, 0)}, {"in_channels": 2}])
def test_wrong_sizes_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="resnet: got width"):
        ResNet(**wrong)
