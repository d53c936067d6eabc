"""What holds for every transform, and what each of them does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from certify.checks import InputError
from diffad.data.transforms import HARD_TRANSFORMS, TRANSFORMS, LightView, apply, apply_each, light_view
from diffad.data.transforms.base import check_partners, generator
from diffad.data.transforms.degrading import Blur, Noise
from diffad.data.transforms.erasing import Cutout, RandomErasing
from diffad.data.transforms.geometry import Crop, Elastic, Rotation
from diffad.data.transforms.mixing import CutMix, Mixup
from diffad.data.transforms.pasting import CutPaste, CutPasteScar


def pictures(
    count: int = 7, channels: int = 3, height: int = 18, width: int = 18, seed: int = 0
) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


SMOOTH = torch.linspace(0, 1, 16)[None, None, :, None] * torch.linspace(0.5, 1, 16)[None, None, None, :]


def test_the_thirteen_hard_transforms_of_the_paper():
    assert set(HARD_TRANSFORMS) == {
        "jigsaw", "random_erasing", "cutpaste", "cutpaste_scar", "rotation", "blur", "crop_intense",
        "crop_extreme", "noise", "mixup", "cutout", "cutmix", "elastic",
    }  # fmt: skip


@pytest.mark.parametrize("name", [*TRANSFORMS, "light"])
@given(order=st.permutations(range(5)), size=st.integers(1, 5), channels=st.sampled_from([1, 3]))
@settings(max_examples=5, deadline=None)
def test_an_image_depends_on_its_own_seed_alone(name: str, order: list[int], size: int, channels: int):
    transform = LightView(flip=True) if name == "light" else TRANSFORMS[name]
    images, others = pictures(5, channels), pictures(5, channels, seed=1)
    seeds = torch.tensor([3, 1, 4, 1, 2**62])
    whole = transform(images, seeds=seeds, partners=others)
    rows = order[:size]
    part = transform(images[rows], seeds=seeds[rows], partners=others[rows])
    assert torch.equal(part, whole[rows])


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_range_and_global_state(name: str, dtype: torch.dtype):
    images = pictures(channels=1, width=18).to(dtype).round()  # extreme values: clipping is needed
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    changed = apply(name, images, seeds=range(7), partners=images.flip(0))
    assert changed.shape == images.shape
    assert changed.dtype == dtype
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert float((changed - images).abs().max()) > 0.05
    assert torch.equal(images, pictures(channels=1).to(dtype).round())
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("name", sorted(set(HARD_TRANSFORMS)))
@pytest.mark.parametrize(("height", "width"), [(15, 22), (8, 8), (23, 9)])
def test_any_shape_of_image(name: str, height: int, width: int):
    images = pictures(height=height, width=width)
    assert apply(name, images, seeds=range(7), partners=images).shape == images.shape


@pytest.mark.parametrize("name", sorted(set(TRANSFORMS) - {"blur"}))
def test_seeds_differ(name: str):
    images = SMOOTH.expand(12, 1, 16, 16)
    changed = apply(name, images, seeds=range(12), partners=1 - images)
    assert len(torch.unique(changed, dim=0)) > (2 if name == "rotation90" else 6)


def test_jigsaw_moves_the_quarters_and_loses_none():
    images = torch.arange(4.0).repeat_interleave(2).reshape(2, 4).repeat_interleave(2, 0)
    images = torch.cat([images[:2, :4], images[2:, :4] + 0])[None, None] / 8
    images[..., 2:, :] += 0.5
    moved = apply("jigsaw", images.expand(60, 1, 4, 4), seeds=range(60))
    assert all(torch.equal(m.flatten().sort().values, images.flatten().sort().values) for m in moved)
    assert not any(torch.equal(m, images[0]) for m in moved)
    corners = moved[:, 0, ::2, ::2]
    assert torch.equal(corners.repeat_interleave(2, 1).repeat_interleave(2, 2), moved[:, 0])
    assert len(torch.unique(moved, dim=0)) > 15  # of 23


def test_erasing_and_cutout_change_a_rectangle_only():
    images = torch.zeros(200, 1, 20, 20)
    images[..., :10] = 0.5
    for transform, low, high in ((RandomErasing(), 2, 10), (Cutout(), 5, 5)):
        touched = (transform(images, seeds=range(200)) != images)[:, 0]
        tall, wide = touched.any(2).sum(1), touched.any(1).sum(1)
        assert torch.equal(touched.sum((1, 2)), tall * wide)
        assert int(tall.min()) == int(wide.min()) == low
        assert int(tall.max()) == int(wide.max()) == high
    assert Cutout()(images, seeds=range(200)).unique().tolist() == [0.0, 0.25, 0.5]


def test_cutpaste_copies_a_square_from_elsewhere_in_the_image():
    images = torch.arange(400.0).reshape(1, 1, 20, 20).expand(200, 1, 20, 20) / 400
    changed = apply("cutpaste", images, seeds=range(200))
    touched = (changed != images)[:, 0]
    sides = touched.any(2).sum(1)
    assert torch.equal(touched.sum((1, 2)), sides**2)
    assert (int(sides.min()), int(sides.max())) == (2, 10)
    shifts = [torch.unique(((new - old) * 400).round()[where]) for new, old, where in
              zip(changed[:, 0], images[:, 0], touched, strict=True)]  # fmt: skip
    assert all(len(shift) == 1 for shift in shifts)


def test_a_scar_is_small_and_thin():
    images = pictures(100, 1, 32, 32)
    touched = (apply("cutpaste_scar", images, seeds=range(100)) != images).float().mean((1, 2, 3))
    assert float(touched.min()) > 0.005
    assert float(touched.max()) < 0.12 * 0.5 * 1.3


def test_rotation_reads_the_image_at_rotated_places():
    side = 33
    axis = (torch.arange(side) - side // 2).double()
    x, y = axis[None, :], axis[:, None]

    def picture(across: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return (0.5 + 0.01 * across + 0.004 * down)[None, None]

    image = picture(x.expand(side, side), y.expand(side, side))
    for seed in range(5):
        angle = np.deg2rad(generator(seed).uniform(-90, 90))
        cos, sin = np.cos(angle), np.sin(angle)
        found = apply("rotation", image, seeds=[seed])
        wanted = picture(cos * x + sin * y, cos * y - sin * x)
        inside = slice(side // 2 - 8, side // 2 + 9)  # the corners are reflected
        assert torch.allclose(found[..., inside, inside], wanted[..., inside, inside], atol=1e-9)


def test_quarter_turns_are_exact():
    image = pictures(1)
    turned = {tuple(torch.rot90(image, k, (2, 3)).flatten().tolist()) for k in (1, 2, 3)}
    found = apply("rotation90", image.expand(30, -1, -1, -1), seeds=range(30))
    assert {tuple(one.flatten().tolist()) for one in found} == turned


@pytest.mark.parametrize(
    ("crop", "low", "high"), [(Crop(0.5, 0.8), 0.5, 0.8), (Crop(0.4, 0.6, centre=True), 0.4, 0.6)]
)
def test_crops_enlarge_a_share_of_the_side(crop: Crop, low: float, high: float):
    ramp = torch.linspace(0, 1, 41, dtype=torch.float64)[None, None, None].expand(80, 1, 41, 41)
    shares = (lambda cut: (cut[:, 0, 20, 30] - cut[:, 0, 20, 10]) * 2)(crop(ramp, seeds=range(80)))
    assert low <= float(shares.min()) < low + 0.05
    assert high - 0.05 < float(shares.max()) <= high
    middle = crop(ramp, seeds=range(80))[:, 0, 20, 20]
    assert bool((middle - 0.5).abs().max() < 1e-9) is crop.centre


def test_blur_is_a_normalised_gaussian_within_five_percent_of_the_width():
    image = torch.zeros(1, 1, 100, 100, dtype=torch.float64)
    image[..., 50, 50] = 1
    blurred = apply("blur", image, seeds=[0])[0, 0]
    assert float(blurred.sum()) == pytest.approx(1)
    assert int((blurred > 0).sum()) == 25
    weights = torch.exp(-0.5 * (torch.arange(-2.0, 3) / 2.5).double() ** 2)
    weights /= weights.sum()
    assert torch.allclose(blurred[48:53, 48:53], weights[:, None] * weights, atol=1e-7)


def test_noise_has_the_stated_deviation():
    image = torch.full((4, 3, 64, 64), 0.5)
    noise = apply("noise", image, seeds=range(4)) - image
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    assert abs(float(noise.mean())) < 0.003


def test_beta_of_a_tenth_mostly_does_not_blend():
    images, others = torch.zeros(2000, 1, 2, 2), torch.ones(2000, 1, 2, 2)
    share = apply("mixup", images, seeds=range(2000), partners=others)[:, 0, 0, 0]
    unblended = float(((share < 0.1) | (share > 0.9)).float().mean())
    assert unblended == pytest.approx(0.807, abs=0.03)  # Beta(0.1, 0.1), from its distribution function
    even = Mixup(concentration=10.0)(images, seeds=range(2000), partners=others)[:, 0, 0, 0]
    assert float(((even < 0.1) | (even > 0.9)).float().mean()) == 0


def test_cutmix_takes_a_fifth_of_another_image():
    images, others = torch.zeros(50, 1, 100, 100), torch.ones(50, 1, 100, 100)
    share = apply("cutmix", images, seeds=range(50), partners=others).mean((1, 2, 3))
    assert torch.allclose(share, torch.full_like(share, 0.45**2), atol=0.005)


def test_each_image_under_its_own_transform():
    images, others = pictures(6), pictures(6, seed=1)
    names = ["noise", "mixup", "noise", "rotation", "mixup", "blur"]
    found = apply_each(names, images, seeds=range(6), partners=others)
    for row, name in enumerate(names):
        one = apply(name, images[row : row + 1], seeds=[row], partners=others[row : row + 1])
        assert torch.equal(found[row : row + 1], one)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("turn", {"seeds": [0]}, "transform: got 'turn', allowed are jigsaw"),
        ("noise", {"seeds": [0, 1]}, "seeds: got 2 for 1 images"),
        ("noise", {"seeds": [-1]}, "least -1"),
        ("mixup", {"seeds": [0]}, "partners: got None"),
        ("cutmix", {"seeds": [0], "partners": 2 * torch.ones(1, 3, 18, 18)}, r"partners: values in \[2, 2\]"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        apply(name, pictures(1), **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crop(0.8, 0.5), r"crop: low, high: got 0\.8, 0\.5"),
        (lambda: RandomErasing(low=0.0), "erasing: low, high"),
        (lambda: Cutout(share=1.5), "cutout: share: got 1.5"),
        (lambda: CutPaste(high=2.0), "cutpaste: low, high"),
        (lambda: CutPasteScar(length=(0.0, 0.5)), "scar: length"),
        (lambda: CutMix(area=0.0), "cutmix: area"),
        (lambda: Mixup(concentration=0.0), "mixup: concentration: got 0.0"),
        (lambda: Noise(sigma=-1.0), "noise: sigma"),
        (lambda: Blur(sigma=float("nan")), "blur: sigma"),
        (lambda: Rotation(degrees=0.0), "rotation: degrees"),
        (lambda: Elastic(points=1), "elastic: got points = 1"),
        (lambda: LightView(area=(0.9, 1.1)), "light view: area"),
        (lambda: LightView(grey_probability=2.0), "light view: got probabilities"),
        (lambda: LightView(jitter=(0.4, 0.4, 0.4, 0.6)), "light view: got jitter"),
    ],
)
def test_parameters_out_of_range_are_named(make: Callable[[], object], message: str):
    with pytest.raises(InputError, match=message):
        make()


def test_sizes_that_a_transform_cannot_use_are_refused():
    with pytest.raises(InputError, match="square"):
        apply("rotation90", pictures(width=10), seeds=range(7))
    with pytest.raises(InputError, match="jigsaw"):
        apply("jigsaw", torch.rand(1, 1, 1, 8), seeds=[0])
    with pytest.raises(InputError, match=r"need \[0, 1\]"):
        apply("noise", pictures() * 2, seeds=range(7))
    with pytest.raises(InputError, match=r"partners: got \(7, 3, 9, 9\)"):
        check_partners(pictures(height=9, width=9), pictures(), "cutmix")
    with pytest.raises(InputError, match="names: got 2 for 7"):
        apply_each(["noise", "blur"], pictures(), seeds=range(7))


def test_a_light_view_is_closer_than_a_hard_transform_and_can_flip():
    images = SMOOTH.expand(40, 1, 16, 16)
    light = light_view(images, seeds=range(40))
    jigsaw = apply("jigsaw", images, seeds=range(40))
    assert float((light - images).abs().mean()) < 0.5 * float((jigsaw - images).abs().mean())
    still = LightView(jitter_probability=0.0, area=(1.0, 1.0))
    assert torch.allclose(still(images, seeds=range(40)), images, atol=1e-6)
    ramp = torch.linspace(0, 1, 16)[None, None, None].expand(40, 1, 16, 16)
    mirrored = (light_view(ramp, seeds=range(40), flip=True).diff(dim=3).mean((1, 2, 3)) < 0).sum()
    assert 10 < int(mirrored) < 30
