import pytest
import torch

from certify.checks import InputError
from diffad.atd import PixelDiscriminator, PixelGenerator


@pytest.mark.parametrize(
    ("channels", "side", "hidden"), [(1, 16, (4, 6)), (3, 32, (4, 6, 8)), (1, 28, (4, 6))]
)
def test_images_of_the_right_size_in_the_unit_box_get_one_logit_each(
    channels: int, side: int, hidden: tuple[int, ...]
) -> None:
    generator = PixelGenerator(channels, side, hidden, latent=5)
    images = generator(10 * torch.randn(7, 5, generator=torch.Generator().manual_seed(0)))
    assert images.shape == (7, channels, side, side)
    assert float(images.detach().min()) >= 0
    assert float(images.detach().max()) <= 1
    assert PixelDiscriminator(channels, side, hidden)(images).shape == (7,)


def test_the_discriminator_takes_sides_that_do_not_halve_evenly() -> None:
    assert PixelDiscriminator(1, 28, (4, 6, 8))(torch.rand(2, 1, 28, 28)).shape == (2,)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(InputError, match="3 stages double a side, which never ends at 28"):
        PixelGenerator(1, 28, (4, 6, 8))
    with pytest.raises(InputError, match="4 stages leave nothing of 8 x 8 images"):
        PixelDiscriminator(1, 8, (4, 4, 4, 4))
