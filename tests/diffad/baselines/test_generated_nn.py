"""The nearest neighbour on a bank that a denoiser has filled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from certify.checks import InputError
from diffad import load_detector
from diffad.baselines.closed_form import ClosedForm
from diffad.baselines.generated_nn import GeneratedNN
from diffad.baselines.pixel_nn import PixelNN
from diffad.generate import generate

TRAIN = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
TEST = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))
OPTIONS = {"generated": 50, "sigmas": (1.0, 0.5)}


def generator() -> ClosedForm:
    return ClosedForm().fit(TRAIN)


def test_it_is_the_nearest_neighbour_among_normals_and_samples() -> None:
    detector = GeneratedNN(k=2, **OPTIONS).attach(generator()).fit(TRAIN, seed=3)
    samples = generate(generator().reconstruct, TRAIN, 50, sigmas=(1.0, 0.5), seed=3)
    same = PixelNN(k=2).fit(torch.cat([TRAIN, samples]))
    assert torch.equal(detector.score(TEST), same.score(TEST))
    assert detector.lipschitz == 2.0
    for ours, theirs in zip(detector.score_interval(TEST), same.score_interval(TEST), strict=True):
        assert (ours == theirs).all()
    assert (detector.score(TEST) <= PixelNN(k=2).fit(TRAIN).score(TEST) + 1e-6).all()


def test_the_folder_holds_the_bank_and_no_network(tmp_path: Path) -> None:
    detector = GeneratedNN(**OPTIONS).attach(generator()).fit(TRAIN)
    detector.save_pretrained(tmp_path)
    loaded = load_detector(tmp_path)
    assert loaded.config() == {"k": 1, "generated": 50, "sigmas": [1.0, 0.5]}
    assert torch.equal(loaded.score(TEST), detector.score(TEST))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    with pytest.raises(InputError, match="no generator"):
        loaded.fit(TRAIN)


def test_a_bank_without_samples_is_another_detector() -> None:
    with pytest.raises(InputError, match="pixel_nn has none"):
        GeneratedNN(generated=0)
