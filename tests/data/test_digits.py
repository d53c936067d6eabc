from __future__ import annotations

from collections import Counter

import pytest
import torch
from sklearn.datasets import load_digits

from diffad.data import load_data
from diffad.data.digits import digits


def test_pools_partition_the_set():
    source = digits()
    names = source.train.identifiers + source.test.identifiers
    assert len(set(names)) == len(names) == 1797
    held_out, total = Counter(source.test.classes), Counter(source.train.classes + source.test.classes)
    assert all(held_out[c] >= 40 and abs(held_out[c] / total[c] - 0.25) < 0.01 for c in total)


def test_pixels_are_the_scaled_originals_enlarged():
    source, raw = digits(), load_digits()
    image, mask = source.train.read(0)
    index = int(source.train.identifiers[0].rsplit("/", 1)[1])
    original = torch.from_numpy(raw.images[index]).float() / 16
    # corner, edge and interior weights of bilinear x 2 with half-pixel centres: 1, (3/4, 1/4), their products
    assert mask is None
    assert image[0, 0, 0] == original[0, 0]
    assert image[0, 0, 1] == 0.75 * original[0, 0] + 0.25 * original[0, 1]
    expected = (9 * original[3, 3] + 3 * original[3, 4] + 3 * original[4, 3] + original[4, 4]) / 16
    assert image[0, 7, 7] == expected


@pytest.mark.parametrize(("resolution", "channels"), [(8, 1), (16, 3), (32, 1), (6, 1)])
def test_size_and_channels(resolution, channels):
    image, _ = digits(resolution=resolution, channels=channels).test.read(3)
    assert image.shape == (channels, resolution, resolution)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1


@pytest.mark.parametrize("digit", range(10))
def test_every_class_as_the_normal_one(digit):
    split = load_data("digits", normal_class=digit)
    normals = len(split.test.normals())
    assert normals >= 40
    assert len(split.test.anomalies()) == normals
    counts = Counter(split.test.anomalies().defects)
    assert set(counts) == set("0123456789") - {str(digit)}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert 90 <= len(split.train) <= 105
    assert 15 <= len(split.calibration) <= 20
    assert 15 <= len(split.validation.normals()) <= 20
    assert split.probe["dropped_copies"] == 0


def test_frozen():
    """The default split every recorded number rests on; a change here is a new data set."""
    assert load_data("digits", normal_class=8).fingerprint()[:16] == "ad44982485f1a98c"
