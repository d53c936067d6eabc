from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from parts import images
from PIL import Image

from certify.checks import InputError
from diffad.atd.config import AtdConfig
from diffad.atd.open_set import (
    CHOOSING,
    TRAINED,
    OpenSources,
    check_apart,
    check_untested,
    native_of,
)
from diffad.data import load_data
from diffad.data.load import Request
from diffad.data.transforms import apply

NORMALS = images(0, 10, side=16)


@pytest.mark.parametrize("specs", [TRAINED, CHOOSING], ids=["trained", "choosing"])
def test_the_default_sets_need_no_download_and_fit_the_normals(specs: tuple[str, ...]) -> None:
    found = OpenSources(specs, seed=0, purpose=0).images(NORMALS.expand(-1, 3, -1, -1), 12)
    assert found.shape == (12, 3, 16, 16)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_sources_have_equal_shares_and_draws_follow_seed_and_purpose() -> None:
    specs = ("textures:dots", "transforms:cutmix")
    first = OpenSources(specs, 0, 0).images(NORMALS, 7)
    assert len(first) == 8
    assert torch.equal(first, OpenSources(specs, 0, 0).images(NORMALS, 7))
    for other in (OpenSources(specs, 1, 0), OpenSources(specs, 0, 1)):
        changed = other.images(NORMALS, 7)
        assert not torch.equal(first[:4], changed[:4])
        assert not torch.equal(first[4:], changed[4:])


def test_transforms_are_those_of_the_toolkit() -> None:
    found = OpenSources(("transforms:jigsaw",), 0, 0).images(NORMALS[:1], 30)
    known = torch.cat([apply("jigsaw", NORMALS[:1], seeds=[seed]) for seed in range(300)])
    same = (found[:, None] == known[None]).flatten(2).all(2).any(1)
    assert bool(same.all())


def test_normals_that_a_transform_leaves_alone_are_left_out() -> None:
    found = OpenSources(("transforms:cutmix", "transforms:jigsaw"), 0, 0).images(NORMALS[:1], 20)
    assert len(found) < 20  # an image mixed with itself is itself
    assert len(found) >= 9
    assert not bool((found == NORMALS[:1]).flatten(1).all(1).any())
    with pytest.raises(InputError, match="transforms:cutmix leave every normal as it is"):
        OpenSources(("transforms:cutmix",), 0, 0).images(NORMALS[:1], 20)


def test_a_data_set_gives_its_training_images_at_the_size_of_the_normals(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(3):
                shade = 40 * number + (10 if part == "train" else 20)
                Image.new("L", (20, 20), shade).save(tmp_path / part / name / f"{number}.png")
    found = OpenSources((f"folder:{tmp_path}",), 0, 0).images(NORMALS, 100)
    assert found.shape == (6, 1, 16, 16)
    assert {round(255 * float(image.mean())) % 40 for image in found} == {10}


def test_what_cannot_be_a_source_is_named() -> None:
    for specs, message in (
        ((), "need at least one source"),
        (("digits", "digits"), "each once"),
        (("texture",), "open data: got 'texture', allowed are textures, transforms"),
        (("textures:wood",), "open data: textures: got 'wood'"),
        (("transforms:flip",), "open data: transforms: got 'flip'"),
    ):
        with pytest.raises(InputError, match=message):
            OpenSources(specs, 0, 0)


def test_an_open_set_has_no_detail_that_the_normals_cannot_have() -> None:
    native = native_of(Request("digits", resolution=16))
    assert native is not None
    found = OpenSources(("textures:dots", "transforms:jigsaw"), 0, 0).images(NORMALS, 12, native)
    torch.testing.assert_close(native(found[:1]), found[:1], atol=0.05, rtol=0)  # up to the clip to [0, 1]
    plain = OpenSources(("textures:dots", "transforms:jigsaw"), 0, 0).images(NORMALS, 12)
    assert float((native(plain) - plain).abs().max()) > 0.05
    assert native_of(Request("textures:dots")) is None


def test_what_is_tested_on_is_refused_as_an_open_set() -> None:
    check_untested(("textures:dots", "transforms:jigsaw"), ("rest", "textures:grid"), "digits")
    for specs, outliers in (
        (("textures:dots",), ("textures",)),
        (("textures:dots",), ("textures:dots",)),
        (("mnist", "cifar10"), ("rest", "mnist")),
    ):
        with pytest.raises(InputError, match=f"open data: {specs[0]} is tested on"):
            check_untested(specs, outliers, "digits")
    for data in ("textures", "textures:grid"):
        with pytest.raises(InputError, match="open data: textures:grid is the in-distribution"):
            check_untested(TRAINED, (), data)
    with pytest.raises(InputError, match="folder:x/ is the in-distribution"):
        check_untested(("folder:x/",), (), "folder:x")


def test_a_picture_in_two_sets_is_refused() -> None:
    split = load_data("digits", normal_class=8, limit=5)
    apart = images(1, 4, side=16), images(2, 4, side=16)
    check_apart(split, *apart)
    with pytest.raises(InputError, match="validation_open_data: 1 of its images are in open_data too"):
        check_apart(split, apart[0], torch.cat([apart[1], apart[0][2:3]]))
    with pytest.raises(InputError, match="open_data: 2 of its images are test images of digits:8"):
        check_apart(split, torch.cat([apart[0], split.test.images[3:5]]), apart[1])
    with pytest.raises(InputError, match="validation_open_data: 1 of its images are in-distribution images"):
        check_apart(split, apart[0], torch.cat([apart[1], split.train.images[:1]]))


def test_the_default_kinds_of_training_and_validation_differ() -> None:
    assert not set(TRAINED) & set(CHOOSING)
    config = AtdConfig()
    assert config.trained_on.purpose != config.chosen_on.purpose
    assert replace(config, seed=3).trained_on.seed == 3
