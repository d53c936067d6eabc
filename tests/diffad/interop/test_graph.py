"""Detectors as graphs of torch.export: the same scores and gradients for any batch, or a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.baselines.autoencoder import Autoencoder
from diffad.baselines.lipschitz_net import LipschitzNet
from diffad.baselines.patch_nn import PatchNN
from diffad.baselines.pca import PCA
from diffad.baselines.pixel_mean import PixelMean
from diffad.baselines.pixel_nn import PixelNN
from diffad.detector import Detector
from diffad.interop import SklearnDetector, export, graph

NORMALS = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("detector", [PCA(2), Autoencoder(steps=3), LipschitzNet(width=8, steps=3)])
def test_a_saved_graph_scores_any_number_of_images_and_has_the_gradient(
    detector: Detector, tmp_path: Path
) -> None:
    detector.fit(NORMALS)
    export(detector, tmp_path / "score.pt2")
    score = torch.export.load(tmp_path / "score.pt2").module()
    for count in (1, 5):
        torch.testing.assert_close(score(IMAGES[:count]), detector.score(IMAGES[:count]))
    leaves = [IMAGES.clone().requires_grad_() for _ in range(2)]
    ours, theirs = detector.score(leaves[0]).sum(), score(leaves[1]).sum()
    torch.testing.assert_close(*torch.autograd.grad([ours, theirs], leaves))


@pytest.mark.parametrize("detector", [PixelMean(), PixelNN(k=2)])
def test_a_search_takes_any_number_of_images(detector: Detector) -> None:
    score = export(detector.fit(NORMALS)).module()
    torch.testing.assert_close(score(IMAGES), detector.score(IMAGES))


def test_what_is_computed_in_chunks_of_images_needs_a_fixed_batch() -> None:
    detector = PatchNN(patch_size=3, bank_size=50).fit(NORMALS)
    with pytest.raises(InputError, match="try batch=1"):
        export(detector)
    score = export(detector, batch=2).module()
    torch.testing.assert_close(score(IMAGES[:2]), detector.score(IMAGES[:2]))


def test_the_noise_of_several_shots_is_a_constant_of_the_graph() -> None:
    from diffad.diffusion.detector import DiffusionDetector
    from diffad.diffusion.model import Denoiser

    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = Denoiser.build((1, 8, 8), block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1)
    detector = DiffusionDetector.from_denoiser(denoiser, (1, 8, 8), draws=1, shots=3).fit(NORMALS)
    score = export(detector, batch=2).module()
    first = score(IMAGES[:2])
    torch.testing.assert_close(first, detector.score(IMAGES[:2]), rtol=1e-4, atol=0)
    assert torch.equal(score(IMAGES[:2]), first)
    assert "randn" not in str(export(detector, batch=1).graph)


class Branching(PixelMean):
    """What is computed depends on the values."""

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return super()._score(images, noise) if float(images.max()) > 0 else images.sum((1, 2, 3))


def test_what_is_no_graph_is_refused_in_one_line() -> None:
    for detector, words in (
        (PCA(), "is not fitted"),
        (SklearnDetector("OneClassSVM").fit(NORMALS), "is a black box"),
        (Branching().fit(NORMALS), "cannot be written as one graph"),
    ):
        with pytest.raises(InputError, match=words) as raised:
            export(detector, batch=1)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="got batch = 0"):
        export(PCA().fit(NORMALS), batch=0)


def test_a_graph_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        graph._Score, "forward", lambda self, images: self.detector.score_noisy(images) + 0.01
    )
    with pytest.raises(InputError, match="differ by"):
        export(PCA(2).fit(NORMALS))
