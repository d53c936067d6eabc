"""The score of every detector with a gradient as a graph: by `torch.export`, and as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract_detectors import ANOMALIES, FACTORIES, NORMALS, TRAIN

from certify.checks import InputError
from diffad import DETECTORS, load_detector
from diffad.interop import export, export_onnx

# Their scores branch on the number of images, in our blocks of work or in the libraries below.
FIXED_BATCH = ("patch_nn", "closed_form", "diffusion", "purified", "anomalib")


@pytest.mark.parametrize("name", DETECTORS)
def test_a_graph_has_the_score_and_the_gradient_of_every_detector_that_has_one(name: str) -> None:
    detector = FACTORIES[name]().fit(TRAIN, seed=5)
    if not detector.has_gradient:
        with pytest.raises(InputError, match="is a black box"):
            export(detector)
        return
    score = export(detector, batch=2 if name in FIXED_BATCH else None).module()
    leaves = [torch.cat([NORMALS[:1], ANOMALIES[:1]]).requires_grad_() for _ in range(2)]
    wanted, found = detector.score(leaves[0]), score(leaves[1])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)
    wanted_gradient, gradient = torch.autograd.grad([wanted.sum(), found.sum()], leaves)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_an_onnx_file_has_the_score_of_every_detector_that_has_a_gradient(name: str, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    detector, path = FACTORIES[name]().fit(TRAIN, seed=5), tmp_path / "score.onnx"
    if not detector.has_gradient:
        with pytest.raises(InputError, match="is a black box"):
            export_onnx(detector, path)
        return
    export_onnx(detector, path, batch=2 if name in FIXED_BATCH else None)
    images = torch.cat([NORMALS[:1], ANOMALIES[:1]])
    found = load_detector(f"onnx:{path}").fit(images).score(images)
    torch.testing.assert_close(found, detector.score(images).detach(), rtol=1e-4, atol=0)
