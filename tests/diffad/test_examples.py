from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from certify.checks import InputError
from certify.sampler import gaussian_noise
from diffad.conditions import Subject
from diffad.examples import make_examples, read_examples, write_examples

SUBJECT = Subject("digits:8", 8, "toy", "reference", "l2", 0.5)
PICTURES = SimpleNamespace(images=torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)))


class Both:
    """Shows its input: the reconstruction is the noisy image itself, the map its first channel."""

    def reconstruct(self, noisy: torch.Tensor, sigma: float) -> torch.Tensor:
        return noisy

    def anomaly_map(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0]


class Neither:
    pass


def test_pictures_are_made_with_the_keyed_noise_and_come_back(tmp_path):
    index = np.array([4, 1])
    made = make_examples(Both(), SUBJECT, PICTURES, index, seed=3)
    noise = gaussian_noise(3, 4, "evaluate", 0, (1, 8, 8))
    expected = PICTURES.images[4].double().numpy() + 0.5 * noise
    assert made.reconstructions is not None
    np.testing.assert_allclose(made.reconstructions[0], expected, atol=1e-6)
    write_examples(tmp_path, made)
    found = read_examples(tmp_path)
    assert found is not None
    assert found.subject == SUBJECT
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_allclose(found.images, made.images, atol=1e-3)
    np.testing.assert_allclose(found.maps, made.images[:, 0], atol=1e-3)


def test_a_detector_without_pictures_keeps_the_inputs(tmp_path):
    made = make_examples(Neither(), SUBJECT, PICTURES, np.array([0]), seed=0)
    assert (made.reconstructions, made.maps) == (None, None)
    write_examples(tmp_path, made)
    found = read_examples(tmp_path)
    assert found is not None
    assert found.maps is None


def test_no_examples_are_no_error_and_broken_ones_are(tmp_path):
    assert read_examples(tmp_path) is None
    (tmp_path / "examples.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="run the command again"):
        read_examples(tmp_path)
