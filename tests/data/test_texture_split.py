from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from certify.checks import InputError
from diffad.data.texture_split import TextureCounts, texture_split
from diffad.data.textures import FAMILIES

SMALL = TextureCounts(train=20, calibration=8, validation=8, test=12)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family):
    split = texture_split(family, counts=SMALL)
    assert {name: len(part) for name, part in split.parts().items()} == {
        "train": 20,
        "calibration": 8,
        "validation": 16,
        "test": 24,
    }
    assert Counter(split.test.anomalies().defects) == {"blob": 3, "scratch": 3, "stain": 3, "paste": 3}
    assert split.test.masks.any(dim=2).any(dim=1).tolist() == [False] * 12 + [True] * 12
    # true 8-bit pictures
    codes = split.test.images * 255
    assert torch.allclose(codes, codes.round(), atol=1e-4)


def test_an_image_depends_on_its_place_only():
    short, full = (texture_split("dots", counts=SMALL, limit=limit) for limit in (3, None))
    assert torch.equal(short.test.images[3:], full.test.images[12:15])
    assert torch.equal(short.train.images, full.train.images)
    assert not torch.equal(full.train.images, texture_split("dots", counts=SMALL, seed=1).train.images)


def test_colour_repeats_grey_and_scales_sizes():
    grey, colour = (texture_split("grid", counts=SMALL, channels=channels) for channels in (1, 3))
    assert torch.equal(colour.test.images, grey.test.images.expand(-1, 3, -1, -1))
    assert np.allclose(colour.test.defect_l2, np.sqrt(3) * grey.test.defect_l2.numpy())


def test_default_sizes_of_the_test_defects():
    split = texture_split("grid", counts=TextureCounts(train=10, calibration=4, validation=4, test=200))
    sizes = split.test.anomalies().defect_l2.numpy()
    assert sizes.min() >= 0.9
    assert sizes.max() <= 3.3
    assert abs(np.median(sizes) - 2) < 0.15
    assert split.probe["defect_l2_median"] == np.median(sizes)


def test_frozen():
    """The generator every recorded number rests on; a change here is a new data set."""
    assert texture_split("grid", counts=SMALL).fingerprint()[:16] == "65d67cdda1cfc895"


def test_refusals():
    with pytest.raises(InputError, match="allowed are grid"):
        texture_split("tweed")
    with pytest.raises(InputError, match="at least 16"):
        texture_split("grid", resolution=8)
