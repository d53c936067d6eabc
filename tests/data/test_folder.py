from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from certify.checks import InputError
from diffad.data import load_data
from diffad.data.folder import folder


def test_one_class_of_a_folder(class_folder):
    split = load_data(f"folder:{class_folder}", normal_class="dog")
    assert split.name == "folder:pets:dog"
    assert split.resolution == 12
    assert split.train.identifiers[0].startswith("train/dog/")
    assert split.test.defects == ("good",) * 5 + ("cat",) * 6 + ("owl",) * 4
    assert len(split.train) + len(split.calibration) + len(split.validation.normals()) == 42


def test_only_what_is_needed_is_read(class_folder):
    (class_folder / "train/owl/000.png").write_text("damaged")
    load_data(f"folder:{class_folder}", normal_class="dog")
    with pytest.raises(InputError, match=r"train/owl/000\.png: cannot be read"):
        load_data(f"folder:{class_folder}", normal_class="owl")


def test_mixed_sizes_are_named_unless_a_resolution_is_given(class_folder, write):
    write(class_folder / "test/cat/000.png", (12, 14))
    with pytest.raises(InputError, match=r"test/cat/000\.png: size 1x12x14 differs"):
        load_data(f"folder:{class_folder}", normal_class="dog")
    assert load_data(f"folder:{class_folder}", normal_class="dog", resolution=10).resolution == 10


def test_one_colour_image_makes_all_colour(class_folder, write):
    write(class_folder / "test/cat/000.png", (12, 12, 3))
    assert load_data(f"folder:{class_folder}", normal_class="dog").channels == 3
    assert load_data(f"folder:{class_folder}", normal_class="dog", channels=1).channels == 1


def test_copies_of_test_images_leave_the_train_part(class_folder):
    for i in range(3):
        copy = (class_folder / f"test/dog/{i:03d}.png").read_bytes()
        (class_folder / f"train/dog/9{i}.png").write_bytes(copy)
    split = load_data(f"folder:{class_folder}", normal_class="dog")
    assert split.probe["dropped_copies"] == 3


def test_known_groups_are_never_split(class_folder):
    names = {f"train/dog/{i:03d}.png": f"dog {i // 3}" for i in range(42)}
    names["test/dog/000.png"] = "dog 0"
    (class_folder / "groups.json").write_text(json.dumps(names))
    split = load_data(f"folder:{class_folder}", normal_class="dog")
    groups = {name: set(part.groups) - {None} for name, part in split.parts().items()}
    assert sum(map(len, groups.values())) == len(set.union(*groups.values())) == 14
    assert split.probe["dropped_for_group"] == 3
    assert split.probe["groups"] == len(groups["train"])


def test_groups_that_leave_nothing_to_hold_out_are_refused(class_folder):
    names = {f"train/dog/{i:03d}.png": "one dog" for i in range(42)}
    (class_folder / "groups.json").write_text(json.dumps(names))
    with pytest.raises(InputError, match="groups and copies leave 0 calibration"):
        load_data(f"folder:{class_folder}", normal_class="dog")


def test_too_few_images_say_how_many_are_needed(class_folder):
    for path in sorted((class_folder / "train/dog").iterdir())[8:]:
        path.unlink()
    with pytest.raises(InputError, match=r"got 8 train normals; .* need at least 40"):
        load_data(f"folder:{class_folder}", normal_class="dog")


@pytest.mark.parametrize(
    ("missing", "message"),
    [("train", "train: no such folder; need train/<class>"), ("", "need one that holds")],
)
def test_a_missing_folder_says_the_layout(tmp_path, missing, message):
    root = tmp_path / "set"
    if missing:
        (root / "test" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match=message):
        folder(str(root))


def test_an_empty_path_is_refused():
    with pytest.raises(InputError, match="the folder is missing"):
        load_data("folder:")


@pytest.mark.data
def test_mnist_on_disk():
    root = Path(os.environ.get("DIFFAD_DATA", "")) / "mnist"
    if not os.environ.get("DIFFAD_DATA") or not root.is_dir():
        pytest.skip("needs DIFFAD_DATA, a folder that holds mnist/train/<digit>/*.png")
    split = load_data(f"folder:{root}", normal_class=3, limit=20)
    assert (split.resolution, split.channels) == (28, 1)
    assert len(split.test) == 40
    assert len(split.calibration) == 500
