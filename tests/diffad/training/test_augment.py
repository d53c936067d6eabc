import torch

from diffad.diffusion.config import TrainConfig
from diffad.training.augment import augment


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_nothing_asked_for_changes_nothing() -> None:
    images = torch.rand(3, 1, 4, 4, generator=generator())
    assert augment(images, TrainConfig(), generator()) is images


def test_flips_give_each_image_or_its_mirror() -> None:
    images = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(64, 1, 1, 1) / 16
    for config, axis in ((TrainConfig(random_flip=True), -1), (TrainConfig(random_vertical_flip=True), -2)):
        found = augment(images, config, generator())
        flipped = (found == images.flip(axis)).flatten(1).all(1)
        same = (found == images).flatten(1).all(1)
        assert bool((flipped ^ same).all())
        assert 16 < int(flipped.sum()) < 48


def test_shifts_move_each_image_by_its_own_draw_and_repeat_the_border() -> None:
    images = torch.rand(200, 2, 5, 6, generator=generator())
    found = augment(images, TrainConfig(random_shift=1), generator())
    assert found.shape == images.shape
    seen = set()
    for image, moved in zip(images, found, strict=True):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                rows = (torch.arange(5) + down).clamp(0, 4)
                columns = (torch.arange(6) + right).clamp(0, 5)
                if torch.equal(moved, image[:, rows][:, :, columns]):
                    seen.add((down, right))
                    break
            else:
                continue
            break
        else:
            raise AssertionError("an image is not a shift of itself")
    assert len(seen) == 9
