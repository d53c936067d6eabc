"""Detectors as ONNX files: scored by onnxruntime as by us, for any batch, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from certify.checks import InputError
from diffad import Detector, detector_class, load_detector
from diffad.backbones import Backbone, ResNet
from diffad.baselines.closed_form import ClosedForm
from diffad.baselines.lipschitz_net import LipschitzNet
from diffad.baselines.patch_nn import PatchNN
from diffad.baselines.pca import PCA
from diffad.baselines.pixel_mean import PixelMean
from diffad.baselines.pixel_nn import PixelNN
from diffad.interop import SklearnDetector, export_onnx, graph_onnx

NORMALS = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def needed() -> None:
    for package in graph_onnx.PACKAGES:
        pytest.importorskip(package)


def on_network(name: str, **options: object) -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet(width=4, blocks=(1, 1), in_channels=1, classes=3)
    arguments = {"width": 4, "blocks": [1, 1], "in_channels": 1, "classes": 3}
    backbone = Backbone(network, arch="resnet", arguments=arguments, resolution=8)
    made: Detector = detector_class(name).from_backbone(backbone, **options)  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    ("made", "batch"),
    [
        (lambda: PixelNN(k=3), None),
        (lambda: LipschitzNet(width=8, steps=3), None),
        (lambda: on_network("mahalanobis"), None),
        (lambda: on_network("zarnd", k=2), None),
        (lambda: PatchNN(patch_size=3, bank_size=50), 1),
        (lambda: ClosedForm(sigma=0.5, draws=4), 2),
    ],
)
@pytest.mark.usefixtures("needed")
def test_the_file_scores_as_the_detector_does(
    made: Callable[[], Detector], batch: int | None, tmp_path: Path
) -> None:
    detector, path = made().fit(NORMALS), tmp_path / "score.onnx"
    export_onnx(detector, path, batch=batch)
    assert [one.name for one in tmp_path.iterdir()] == ["score.onnx"]
    again = load_detector(f"onnx:{path}").fit(NORMALS)
    torch.testing.assert_close(again.score(IMAGES), detector.score(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("needed")
def test_what_cannot_be_written_is_refused_in_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    for detector, words in (
        (PCA(), "is not fitted"),
        (SklearnDetector("OneClassSVM").fit(NORMALS), "is a black box"),
        (PatchNN(patch_size=3, bank_size=50).fit(NORMALS), "try batch=1"),
    ):
        with pytest.raises(InputError, match=words) as raised:
            export_onnx(detector, tmp_path / "score.onnx")
        assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


class Median(PixelMean):
    """An operation that ONNX lacks."""

    def _score(self, images: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        return images.flatten(1).median(1).values


@pytest.mark.usefixtures("needed")
def test_an_operation_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written as ONNX .*aten.median") as raised:
        export_onnx(Median().fit(NORMALS), tmp_path / "score.onnx")
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("needed")
def test_a_file_that_differs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = graph_onnx.export(PCA(3).fit(NORMALS))
    monkeypatch.setattr(graph_onnx, "export", lambda *_, **__: other)
    with pytest.raises(InputError, match="ONNX file and pca differ by"):
        export_onnx(PCA(2).fit(NORMALS), tmp_path / "score.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_onnx, "PACKAGES", ("no_such_package",))
    with pytest.raises(InputError, match=r"no_such_package.*pip install 'diffad\[interop\]'"):
        export_onnx(PCA(2).fit(NORMALS), tmp_path / "score.onnx")
