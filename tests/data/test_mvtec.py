from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from certify.checks import InputError
from diffad.data import load_data


def test_category_with_masks(mvtec_folder):
    split = load_data(f"mvtec:{mvtec_folder}")
    assert split.name == "mvtec:tiles"
    assert (split.resolution, split.channels) == (64, 1)
    assert split.test.defects == ("good",) * 5 + ("hole",) * 3 + ("scratch",) * 4
    share = split.test.masks.float().mean(dim=(1, 2))
    assert share[:5].max() == 0
    assert share[5:].tolist() == pytest.approx([0.25] * 7, abs=0.02)
    assert split.test.identifiers[5] == "test/hole/000.png"


def test_the_cut_does_not_depend_on_the_resolution(mvtec_folder):
    small, large = (load_data(f"mvtec:{mvtec_folder}", resolution=side) for side in (16, 48))
    assert small.train.identifiers == large.train.identifiers
    assert small.validation.normals().identifiers == large.validation.normals().identifiers


def test_near_duplicates_stay_on_one_side(mvtec_folder):
    for i in range(12):  # every second image has a darker twin
        twin = Image.open(mvtec_folder / f"train/good/{i:03d}.png").point(lambda v: 0.7 * v)
        twin.save(mvtec_folder / f"train/good/{i:03d}-dark.png")
    split = load_data(f"mvtec:{mvtec_folder}", seed=3)
    parts = [split.train, split.calibration, split.validation.normals()]
    stems = [{Path(name).stem.removesuffix("-dark") for name in part.identifiers} for part in parts]
    assert sum(map(len, stems)) == len(set.union(*stems)) == 44
    assert split.probe["groups"] > 0
    assert load_data(f"mvtec:{mvtec_folder}", group_above=1.0).probe["groups"] == 0


def test_without_ground_truth_there_are_no_masks(mvtec_folder):
    (mvtec_folder / "ground_truth").rename(mvtec_folder / "elsewhere")
    assert load_data(f"mvtec:{mvtec_folder}").test.masks is None


def test_a_missing_mask_is_named(mvtec_folder):
    (mvtec_folder / "ground_truth/hole/001_mask.png").unlink()
    with pytest.raises(InputError, match=r"ground_truth/hole/001_mask\.png: no such file"):
        load_data(f"mvtec:{mvtec_folder}")


def test_one_bad_file_is_named(mvtec_folder):
    (mvtec_folder / "train/good/017.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(InputError, match=r"train/good/017\.png: cannot be read"):
        load_data(f"mvtec:{mvtec_folder}")


def test_another_layout_is_told_the_right_one(class_folder):
    with pytest.raises(
        InputError, match=r"train/good: no such folder; need train/good/, test/good/.*mvtec\.com"
    ):
        load_data(f"mvtec:{class_folder}")


@pytest.mark.data
def test_magnetic_tile():
    root = Path(os.environ.get("DIFFAD_DATA", "")) / "magnetic_tile"
    if not os.environ.get("DIFFAD_DATA") or not root.is_dir():
        pytest.skip("needs DIFFAD_DATA, a folder that holds magnetic_tile in the layout of MVTec AD")
    split = load_data(f"mvtec:{root}", resolution=32)
    assert len(split.train) + len(split.calibration) + len(split.validation.normals()) == 758
    assert split.test.labels.sum() == 392
    assert split.probe["groups"] > 50
    assert split.test.masks.flatten(1).any(1).sum() >= 385
