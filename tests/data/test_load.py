from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from certify.checks import InputError
from diffad.data import DATASETS, load_data


def test_options_reload_the_same_split(class_folder):
    for split in (
        load_data("digits", normal_class=3, seed=2, limit=7),
        load_data(f"folder:{class_folder}", normal_class="cat", resolution=8, channels=3),
    ):
        options = json.loads(json.dumps(split.options))
        assert load_data(**options).fingerprint() == split.fingerprint()


def test_global_random_state_is_left_alone():
    state = torch.get_rng_state()
    load_data("digits", normal_class=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_seed_cuts_other_parts():
    assert (
        load_data("digits", normal_class=1).fingerprint()
        != load_data("digits", normal_class=1, seed=1).fingerprint()
    )


def test_limit_keeps_the_train_part():
    few, all_of_it = (load_data("digits", normal_class=1, limit=limit) for limit in (6, None))
    assert few.train.fingerprint() == all_of_it.train.fingerprint()
    assert len(few.test) == 12


def test_probe_and_options_are_json():
    split = load_data("digits", normal_class=1)
    assert json.loads(json.dumps(split.probe)) == split.probe
    assert {"near_duplicate_auroc", "dropped_copies", "test_normals", "test_anomalies"} <= set(split.probe)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (
            "cats",
            {},
            "data set: got 'cats', allowed are textures:FAMILY, digits, mvtec:FOLDER, folder:FOLDER, mnist",
        ),
        ("digits:8", {}, "digits takes nothing after the colon, got '8'"),
        ("digits", {}, "got normal_class none, allowed are 0, 1"),
        ("digits", {"normal_class": 11}, "got normal_class '11', allowed are 0, 1"),
        ("digits", {"normal_class": 1, "protocol": "osr"}, "protocol: got 'osr', allowed are one_class"),
        ("digits", {"normal_class": 1, "channels": 2}, "channels: got 2"),
        ("digits", {"normal_class": 1, "resolution": 0}, "resolution: got 0, need at least"),
        ("digits", {"normal_class": 1, "limit": 0}, "limit: got 0"),
        ("digits", {"normal_class": 1, "seed": -1}, "seed: got -1"),
        ("digits", {"normal_class": 1, "outliers": ["mnist"]}, "one_class takes none"),
        (
            "digits",
            {"normal_class": 1, "protocol": "unlabeled_multiclass", "outliers": ["textures"]},
            "all classes are normal",
        ),
        (
            "digits",
            {"protocol": "ood", "outliers": ["cats"]},
            "data set: got 'cats', allowed are textures:FAMILY, digits",
        ),
        ("digits", {"protocol": "ood", "outliers": ["textures:tweed"]}, "texture family: got 'tweed'"),
        (
            "digits",
            {"protocol": "ood", "outliers": ["rest"]},
            "'rest' is empty, all classes of digits are normal",
        ),
        (
            "digits",
            {"protocol": "ood", "normal_class": "1,x", "outliers": ["rest"]},
            "got normal_class '1,x'",
        ),
        ("digits", {"protocol": "ood", "normal_class": ",", "outliers": ["rest"]}, "got normal_class ','"),
        ("digits", {"protocol": "unlabeled_multiclass"}, "needs outliers"),
        ("textures:tweed", {}, "texture family: got 'tweed'"),
        ("textures", {"normal_class": 1}, "a family is one class"),
    ],
)
def test_one_line_for_every_wrong_request(spec, options, message):
    with pytest.raises(InputError, match=message) as error:
        load_data(spec, **options)
    assert "\n" not in str(error.value)


def test_a_folder_without_its_layout_is_told_what_stands_before_it(class_folder):
    with pytest.raises(InputError, match=f"did you mean folder:{class_folder} or mvtec:{class_folder}"):
        load_data(str(class_folder))
    with pytest.raises(InputError) as error:
        load_data("cats")
    assert "did you mean" not in str(error.value)


def test_every_name_is_a_loader():
    assert {
        "digits",
        "textures",
        "mvtec",
        "folder",
        "mnist",
        "fashion_mnist",
        "cifar10",
        "cifar100",
        "svhn",
    } == set(DATASETS)


def test_ood_at_the_size_of_the_normal_set(class_folder):
    split = load_data("digits", protocol="ood", outliers=[f"folder:{class_folder}"], limit=8)
    assert split.name == "digits-vs-folder:pets"
    assert (split.resolution, split.channels) == (16, 1)
    assert {defect.split("/")[0] for defect in split.test.anomalies().defects} == {"folder:pets"}
    assert len(split.test) == 16
    assert len(split.train) > 900


def ood_digits(**options):
    given = {
        "normal_class": "0,1,2",
        "outliers": ["rest", "textures:grid", "textures"],
        "limit": 12,
        **options,
    }
    return load_data("digits", protocol="ood", **given)


def test_some_classes_against_the_rest_and_textures():
    split = ood_digits()
    assert split.name == "digits:0,1,2-vs-rest+textures:grid+textures"
    assert set(split.train.categories) == {"0", "1", "2"}
    assert set(split.test.normals().categories) == {"0", "1", "2"}
    sets = Counter(defect.rpartition("/")[0] for defect in split.test.anomalies().defects)
    assert sets == {"rest": 12, "textures:grid": 12, "textures": 12}
    assert set(split.test.anomalies().categories[:12]) == set("3456789")
    assert load_data(**split.options).fingerprint() == split.fingerprint()


def test_parts_share_no_picture():
    parts = [set(part.image_hashes()) for part in ood_digits().parts().values()]
    assert len(set.union(*parts)) == sum(map(len, parts))


def test_outliers_are_drawn_as_the_normals_are():
    """Digits are enlarged from 8 x 8, so rows and columns lie in the span of 8: those of textures do then too."""
    split = ood_digits()
    columns = F.interpolate(torch.eye(8)[:, None], size=16, mode="linear")[:, 0].T.double()
    span = columns @ torch.linalg.pinv(columns)
    images = split.test.images.double()
    outside = (span @ images @ span - images).abs().flatten(1).amax(1)
    assert bool((outside < 1e-6).all())


def test_the_probe_says_how_far_roughness_separates_the_sets():
    probe = ood_digits().probe
    assert set(probe["roughness_auroc"]) == {"rest", "textures:grid", "textures"}
    assert all(0.5 <= value <= 1.0 for value in probe["roughness_auroc"].values())
    assert 0.5 <= probe["roughness_auroc_resampled"] <= 1.0
    assert "roughness_auroc" not in load_data("digits", normal_class=1, limit=4).probe
