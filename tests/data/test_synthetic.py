from __future__ import annotations

import pytest
import torch

from certify.checks import InputError
from diffad.data.defects import SHAPE
from diffad.data.synthetic import with_synthetic_defects


def test_normals_first_then_defects_of_every_kind(image_set):
    normals = image_set(10, "n", group="g")
    both = with_synthetic_defects(normals, SHAPE, least=25)
    assert both.labels.tolist() == [0] * 10 + [1] * 30
    assert torch.equal(both.images[:10], normals.images)
    assert set(both.anomalies().defects) == set(SHAPE.kinds)
    assert set(both.groups) == {"g"}
    assert both.masks is not None
    assert (both.anomalies().defect_l2 > 0).all()
    assert len(set(both.image_hashes())) == 40


def test_each_normal_gets_several_kinds(image_set):
    both = with_synthetic_defects(image_set(4, "n"), SHAPE, least=16)
    kinds = [name.split("+")[1][:-1] for name in both.identifiers if name.startswith("n0+")]
    assert len(set(kinds)) == 4


def test_the_order_of_the_normals_does_not_matter(image_set):
    normals = image_set(6, "n")
    one = with_synthetic_defects(normals, SHAPE)
    two = with_synthetic_defects(normals.take([5, 3, 1, 0, 2, 4]), SHAPE)
    places = [two.identifiers.index(name) for name in one.identifiers]
    assert torch.equal(one.images, two.images[places])


def test_seed_changes_defects_only(image_set):
    normals = image_set(6, "n")
    one, two = (with_synthetic_defects(normals, SHAPE, seed=seed) for seed in (0, 1))
    assert torch.equal(one.normals().images, two.normals().images)
    assert not torch.equal(one.anomalies().images, two.anomalies().images)


def test_one_normal_is_too_few(image_set):
    with pytest.raises(InputError, match="need at least 2"):
        with_synthetic_defects(image_set(1, "n"), SHAPE)
