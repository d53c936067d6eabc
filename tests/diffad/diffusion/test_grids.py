from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffad.diffusion.grids import draw_grids, grid, sample, save_png
from diffad.diffusion.model import Denoiser


def tiny_denoiser() -> Denoiser:
    return Denoiser.build(
        (1, 8, 8), block_out_channels=(8,), norm_num_groups=4, num_train_timesteps=50
    ).eval()


def test_tiles_keep_their_place_and_the_rest_is_grey() -> None:
    images = torch.stack([torch.full((1, 2, 2), value) for value in (0.0, 1.0, 0.2)])
    sheet = grid(images, 2, gap=1, zoom=2)
    assert sheet.shape == (10, 10, 1)
    assert (sheet[:4, :4] == 0).all()
    assert (sheet[:4, 5:9] == 255).all()
    assert (sheet[5:9, :4] == 51).all()
    assert (sheet[5:9, 5:9] == 128).all()
    assert (sheet[4] == 128).all()


def test_colour_and_grey_files_can_be_read_back(tmp_path: Path) -> None:
    for channels in (1, 3):
        pixels = (torch.arange(12 * channels) % 256).to(torch.uint8).reshape(3, 4, channels)
        save_png(tmp_path / "grid.png", pixels)
        with Image.open(tmp_path / "grid.png") as image:
            assert np.array_equal(np.asarray(image).reshape(3, 4, channels), pixels.numpy())


def test_samples_are_images_and_follow_the_seed() -> None:
    denoiser = tiny_denoiser()
    before = torch.random.get_rng_state()
    first, again, other = (sample(denoiser, (1, 8, 8), 3, seed=seed) for seed in (0, 0, 1))
    assert first.shape == (3, 1, 8, 8)
    assert float(first.min()) >= 0.0
    assert float(first.max()) <= 1.0
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_grids_show_clean_then_noisy_and_reconstructed_rows(tmp_path: Path) -> None:
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    draw_grids(tiny_denoiser(), images, tmp_path, step=7, sigmas=[0.1, 0.2], with_samples=False, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["reconstructions-000007.png"]
    with Image.open(tmp_path / "reconstructions-000007.png") as image:
        assert image.size == (4 * 65, 5 * 65)
        corner = np.asarray(image)[:64:8, :64:8]
    assert np.array_equal(corner, (255 * images[0, 0]).round().numpy().astype(np.uint8))
