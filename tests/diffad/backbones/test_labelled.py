from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from certify.checks import InputError
from diffad.backbones.labelled import load_labelled


def test_parts_are_apart_and_hold_the_kept_classes() -> None:
    split = load_labelled("digits", exclude=["0", "7"], resolution=8)
    assert split.classes == ("1", "2", "3", "4", "5", "6", "8", "9")
    rows = {
        name: {image.numpy().tobytes() for image in getattr(split, name).images}
        for name in ("train", "held_out", "test")
    }
    assert not rows["train"] & rows["held_out"]
    assert not rows["train"] & rows["test"]
    assert not rows["held_out"] & rows["test"]
    for part in (split.train, split.held_out, split.test):
        assert part.images.shape[1:] == (1, 8, 8)
        assert 0 <= float(part.images.min()) <= float(part.images.max()) <= 1
    assert set(split.train.labels.tolist()) == set(range(8))
    assert len(split.held_out) == round(0.05 * (len(split.train) + len(split.held_out)))


def test_the_seed_decides_and_the_fingerprint_tells() -> None:
    first, again, other = (load_labelled("digits", limit=80, resolution=8, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.train.images, again.train.images)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert len(first.train) + len(first.held_out) == len(first.test) == 80
    assert load_labelled("digits", limit=80, resolution=8, exclude=["1"]).fingerprint() != first.fingerprint()


def test_labels_follow_the_folder_of_an_image(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for level, name in enumerate(("ant", "bee", "cat")):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                pixels = np.full((6, 6, 3), 60 * level + number, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    split = load_labelled(f"folder:{tmp_path}", exclude=["bee"])
    assert split.classes == ("ant", "cat")
    assert (split.channels, split.resolution) == (3, 6)
    for part in (split.train, split.held_out, split.test):
        found = (part.images.mean(dim=(1, 2, 3)) * 255 > 60).long()
        assert torch.equal(found, part.labels)


def test_what_has_no_classes_is_named() -> None:
    with pytest.raises(InputError, match="exclude_classes: got '12', allowed are 0, 1"):
        load_labelled("digits", exclude=["12"])
    with pytest.raises(InputError, match="1 classes to tell apart"):
        load_labelled("digits", exclude=list("012345678"))
    with pytest.raises(InputError, match="data set with classes: got 'textures'"):
        load_labelled("textures:grid")
