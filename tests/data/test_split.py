from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from certify.checks import InputError
from diffad.data.records import ImageSet
from diffad.data.split import DataSplit, cut, drop_shared


@pytest.fixture
def split(image_set) -> DataSplit:
    return DataSplit(
        "toy",
        image_set(6, "train"),
        image_set(3, "calibration"),
        image_set(4, "validation", defects=("good", "good", "blob", "stain")),
        image_set(4, "test", defects=("good", "good", "hole", "hole")),
        8,
        1,
    )


def test_fingerprint_depends_on_the_order_of_the_test(split):
    turned = dataclasses.replace(split, test=split.test.take([1, 0, 2, 3]))
    assert turned.fingerprint() != split.fingerprint()
    assert dataclasses.replace(split).fingerprint() == split.fingerprint()


def test_a_picture_in_two_parts_is_refused(split, image_set):
    copy = image_set(2, "train")
    renamed = dataclasses.replace(copy, identifiers=("x", "y"))
    with pytest.raises(InputError, match="train0 in train and x in test are the same picture"):
        dataclasses.replace(split, test=ImageSet.concat([renamed, split.test]))


def test_a_group_in_two_parts_is_refused(split, image_set):
    with pytest.raises(InputError, match="train0 in train and calib0 in calibration are the same group"):
        dataclasses.replace(
            split, train=image_set(2, "train", group="g"), calibration=image_set(2, "calib", group="g")
        )


@pytest.mark.parametrize("part", ["train", "calibration"])
def test_anomalies_may_not_be_learnt_from(split, image_set, part):
    with pytest.raises(InputError, match=f"{part} holds anomalies"):
        dataclasses.replace(split, **{part: image_set(2, "bad", defects=("good", "hole"))})


def test_empty_parts_and_other_sizes_are_refused(split):
    with pytest.raises(InputError, match="no image is left for train"):
        dataclasses.replace(split, train=split.train.take([]))
    with pytest.raises(InputError, match=r"need \(3, 8, 8\)"):
        dataclasses.replace(split, channels=3)


def test_cut_is_a_partition_of_the_sizes_asked():
    rest, first, second = cut([None] * 50, (7, 5), np.random.default_rng(0))
    assert (len(rest), len(first), len(second)) == (38, 7, 5)
    assert sorted(rest + first + second) == list(range(50))


@pytest.mark.parametrize("seed", range(10))
def test_cut_never_splits_a_group(seed):
    groups = [None if i % 3 == 0 else f"g{i // 7}" for i in range(70)]
    parts = cut(groups, (9, 9), np.random.default_rng(seed))
    assert sorted(i for part in parts for i in part) == list(range(70))
    assert len(parts[1]) <= 9
    owners = [{groups[i] for i in part} - {None} for part in parts]
    assert sum(map(len, owners)) == len(set.union(*owners))


def test_drop_shared_keeps_the_last_part_whole(image_set):
    train, test = image_set(5, "a"), image_set(3, "b")
    copy = dataclasses.replace(train.take([1, 3]), identifiers=("x", "y"))
    mate = dataclasses.replace(test.take([0]), groups=("g",))
    other = dataclasses.replace(image_set(1, "c"), groups=("g",))
    parts, copies, grouped = drop_shared(
        [ImageSet.concat([train, other]), ImageSet.concat([copy, mate, test.take([1, 2])])]
    )
    assert parts[0].identifiers == ("a0", "a2", "a4")
    assert parts[1].identifiers == ("x", "y", "b0", "b1", "b2")
    assert (copies, grouped) == (2, 1)
