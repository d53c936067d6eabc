from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from certify.checks import InputError
from diffad import DETECTORS, detector_class, load_detector
from diffad.baselines.pixel_nn import PixelNN
from diffad.registry import BARE


def test_a_name_gives_a_new_detector() -> None:
    assert isinstance(load_detector("pixel_nn"), PixelNN)
    assert load_detector("pixel_nn").image_shape is None


def test_an_unknown_name_is_refused_with_those_allowed() -> None:
    with pytest.raises(
        InputError, match=r"'pixelnn' is neither the folder .* nor one of pixel_mean, pca"
    ) as caught:
        load_detector("pixelnn")
    assert "purified" not in str(caught.value)  # a name that no command can fit as it is
    with pytest.raises(InputError, match="allowed are pixel_mean"):
        detector_class("pixelnn")


def test_bare_names_are_those_that_fit_without_anything_else() -> None:
    normals = torch.rand(12, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    slow = ("autoencoder", "deep_svdd", "lipschitz_net")  # which have tests of their own
    for name in (name for name in BARE if name not in slow):
        assert load_detector(name).fit(normals).image_shape == (1, 10, 10)
    for name in ("generated_nn", "diffusion", "zarnd", "cobra", "atd", "msp", "purified", "callable", "onnx"):
        assert name not in BARE
        with pytest.raises(InputError):
            load_detector(name).fit(normals)


def test_keys_of_the_table() -> None:
    names = [
        "pixel_mean",
        "pca",
        "pixel_nn",
        "patch_nn",
        "closed_form",
        "autoencoder",
        "deep_svdd",
        "lipschitz_net",
        "generated_nn",
        "diffusion",
        "zarnd",
        "cobra",
        "atd",
        "msp",
        "max_logit",
        "energy",
        "mahalanobis",
        "relative_mahalanobis",
        "openmax",
        "purified",
        "callable",
        "sklearn",
        "pyod",
        "pytorch_ood",
        "onnx",
        "anomalib",
    ]
    assert list(DETECTORS) == names


def test_importing_diffad_stays_cheap() -> None:
    heavy = (
        "diffusers",
        "accelerate",
        "sklearn",
        "matplotlib",
        "pyod",
        "onnxruntime",
        "anomalib",
        "pytorch_ood",
        "torchvision",
    )
    code = f"import sys, diffad, certify; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
