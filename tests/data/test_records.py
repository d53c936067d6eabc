from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from certify.checks import InputError
from diffad.data.records import ImageSet, Record


def record(value: float, name: str, **fields) -> Record:
    return Record(torch.full((1, 4, 4), float(value)), fields.pop("label", 0), name, **fields)


def scratched(name: str, size: float | None = None, mask: bool = True) -> Record:
    area = torch.eye(4, dtype=torch.bool) if mask else None
    return record(0.5, name, label=1, defect="scratch", mask=area, defect_l2=size)


def test_round_trip_through_records():
    images = ImageSet.from_records([record(0.1, "a", group="g"), scratched("b", 1.5)])
    assert len(images) == 2
    assert images[0].group == "g"
    assert images[0].defect_l2 == 0.0
    assert not images[0].mask.any()
    assert images[1].defect_l2 == 1.5
    assert torch.equal(images[1].mask, torch.eye(4, dtype=torch.bool))
    assert images.take([1, 0]).identifiers == ("b", "a")
    assert images.normals().identifiers == ("a",)
    assert images.anomalies().identifiers == ("b",)


def test_masks_are_unknown_unless_every_anomaly_has_one():
    assert ImageSet.from_records([scratched("a"), scratched("b", mask=False)]).masks is None
    joined = ImageSet.concat(
        [ImageSet.from_records([record(0, "n")]), ImageSet.from_records([scratched("a")])]
    )
    assert joined.masks.sum(dim=(1, 2)).tolist() == [0, 4]


def test_unknown_sizes_are_nan():
    sizes = ImageSet.from_records([record(0, "n"), scratched("a", 2.0), scratched("b")]).defect_l2
    assert sizes[:2].tolist() == [0.0, 2.0]
    assert sizes[2].isnan()


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "at least one"),
        ([record(0, "a"), record(0, "a")], "'a' stands for two"),
        ([record(0, "a", label=1)], "a has label 1 and defect 'good'"),
        ([record(0, "a", defect="hole")], "a has label 0 and defect 'hole'"),
        ([record(0, "a"), Record(torch.zeros(1, 4, 5), 0, "odd")], "odd: size 1x4x5 differs from 1x4x4 of a"),
        ([record(1.5, "a")], "need \\[0, 1\\]"),
        ([record(float("nan"), "a")], "NaN"),
    ],
)
def test_refusals(records, message):
    with pytest.raises(InputError, match=message):
        ImageSet.from_records(records)


def test_fields_of_another_length_are_refused():
    with pytest.raises(InputError, match="got 2 defects for 1 images"):
        ImageSet(
            torch.zeros(1, 1, 4, 4), torch.zeros(1, dtype=torch.int64), ("a",), ("good", "good"), (None,)
        )


def test_fingerprint_ignores_rounding_and_sees_everything_else():
    base = ImageSet.from_records([record(0.2, "a"), scratched("b", 1.0)])
    noisy = ImageSet.from_records([record(0.2 + 1e-7, "a"), scratched("b", 1.0)])
    assert base.fingerprint() == noisy.fingerprint()
    changed = [
        [record(0.2 + 1 / 255, "a"), scratched("b", 1.0)],
        [record(0.2, "c"), scratched("b", 1.0)],
        [record(0.2, "a", group="g"), scratched("b", 1.0)],
        [record(0.2, "a"), scratched("b", 1.1)],
        [record(0.2, "a"), scratched("b", 1.0, mask=False)],
        [scratched("b", 1.0), record(0.2, "a")],
    ]
    prints = {ImageSet.from_records(records).fingerprint() for records in changed}
    assert len(prints | {base.fingerprint()}) == len(changed) + 1


def test_image_hash_is_of_the_picture_alone():
    first, second = ImageSet.from_records([record(0.2, "a"), record(0.2, "b", group="g")]).image_hashes()
    assert first == second
    assert first != ImageSet.from_records([record(0.3, "a")]).image_hashes()[0]


def test_classes_of_images_are_kept_where_all_are_known():
    known = [replace(record(0.2, "a"), category="cat"), replace(scratched("b", 1.0), category="dog")]
    images = ImageSet.from_records(known)
    assert images.categories == ("cat", "dog")
    assert images.take([1]).categories == ("dog",)
    assert ImageSet.concat([images.normals(), images.anomalies()]).categories == ("cat", "dog")
    assert ImageSet.from_records([known[0], scratched("b", 1.0)]).categories is None
    assert (
        images.fingerprint() == ImageSet.from_records([record(0.2, "a"), scratched("b", 1.0)]).fingerprint()
    )
