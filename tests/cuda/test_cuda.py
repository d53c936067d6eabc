"""What has to hold where a GPU computes: the same noise, nearly the same scores, sound attacks, and commands that run.

Trainings pick the GPU by themselves: on such a machine their own tests run there.

Skipped without a CUDA device. Float32 products and convolutions of a GPU differ from a CPU's in their last digits, so
scores are compared with a tolerance, noise and neighbours exactly.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from certify import SmoothedDetector
from certify.cli import main as certify
from diffad import Detector, detector_class
from diffad.atd import Atd, FeatureDiscriminator
from diffad.attacks import attack
from diffad.backbones import Backbone, ResNet
from diffad.backbones.train import main as train_backbone
from diffad.cli import main as diffad
from diffad.cobra import Cobra, Heads
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.model import Denoiser
from diffad.diffusion.train import main as train_ddpm
from diffad.fast_neighbours import nearest_verified
from diffad.zarnd import Zarnd

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA, SHAPE = "cuda", (1, 8, 8)


@pytest.fixture(autouse=True)
def exact_convolutions() -> object:
    """TF32 has ten bits: too few to compare with a CPU."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def random_images(count: int, seed: int) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def zarnd() -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet(width=4, blocks=(1, 1))
    arguments = {"width": 4, "blocks": [1, 1]}
    return Zarnd.from_backbone(Backbone(network, arch="resnet", arguments=arguments, resolution=8))


def ood_score(name: str) -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet(width=4, blocks=(1, 1), classes=3)
    arguments = {"width": 4, "blocks": [1, 1], "classes": 3}
    backbone = Backbone(network, arch="resnet", arguments=arguments, resolution=8)
    backbone.network.fc.bias -= backbone.logits(random_images(30, 0)).mean(0)
    return detector_class(name).from_backbone(backbone)


def cobra(score: str) -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, heads = ResNet(width=4, blocks=(1, 1), classes=0, in_channels=1), Heads(8, 16)
    arguments = {"width": 4, "blocks": [1, 1], "classes": 0, "in_channels": 1}
    backbone = Backbone(network, arch="resnet", arguments=arguments, resolution=8)
    return Cobra.from_network(backbone, heads, score=score)


def atd() -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet(width=4, blocks=(1, 1), classes=0, in_channels=1)
        discriminator = FeatureDiscriminator(8, (12, 6))
    discriminator.layers[-1].weight.data *= 1e3  # the initial weights give logits of about 1e-5
    arguments = {"width": 4, "blocks": [1, 1], "classes": 0, "in_channels": 1}
    return Atd.from_network(
        discriminator, Backbone(network, arch="resnet", arguments=arguments, resolution=8)
    )


def diffusion() -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = Denoiser.build(
            SHAPE, block_out_channels=(8, 8), norm_num_groups=4, prediction_type="sample"
        )
    return DiffusionDetector.from_denoiser(denoiser, SHAPE, draws=2)


FACTORIES = {
    **{name: detector_class(name) for name in ("pixel_mean", "pca", "pixel_nn", "closed_form")},
    "patch_nn": lambda: detector_class("patch_nn")(patch_size=3, bank_size=100),
    "zarnd": zarnd,
    "atd": atd,
    "cobra": lambda: cobra("cosine"),
    "cobra:sum": lambda: cobra("sum"),
    "cobra:released": lambda: cobra("ensemble_released"),
    **{name: partial(ood_score, name) for name in ("msp", "energy", "mahalanobis", "openmax")},
    "diffusion": diffusion,
}


@pytest.mark.parametrize("name", FACTORIES)
def test_scores_and_gradients_are_those_of_the_cpu(name: str) -> None:
    images = random_images(6, 1)
    detector = FACTORIES[name]().fit(random_images(30, 0), seed=3)
    found = []
    for device in ("cpu", CUDA):
        leaf = images.to(device).requires_grad_()
        scores = detector.to(device).score(leaf)
        (gradient,) = torch.autograd.grad(scores.sum(), leaf)
        assert scores.device.type == gradient.device.type == device
        found.append((scores.detach().cpu(), gradient.cpu()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-2, atol=1e-3)


def test_neighbours_on_the_gpu_are_exact() -> None:
    points = torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))
    queries = torch.randn(40, 16, generator=torch.Generator().manual_seed(1))
    distances, indices = nearest_verified(queries, points, 3)
    on_gpu = nearest_verified(queries.to(CUDA), points.to(CUDA), 3)
    assert torch.equal(on_gpu[1].cpu(), indices)
    torch.testing.assert_close(on_gpu[0].cpu(), distances, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("way", "name"), [("input", "zarnd"), ("reference", "diffusion")])
def test_draws_of_a_certificate_use_the_noise_of_the_cpu(way: str, name: str) -> None:
    images = random_images(2, 1)
    detector = FACTORIES[name]().fit(random_images(30, 0), seed=3)
    scores = [
        SmoothedDetector(detector.to(device), 0.5, way, n=100, batch_size=100, device=device).noisy_scores(
            images, range(2)
        )
        for device in ("cpu", CUDA)
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["pixel_nn", "zarnd", "cobra", "diffusion"])
def test_attacks_stay_in_the_ball_and_move_scores(name: str, norm: str) -> None:
    detector = FACTORIES[name]().fit(random_images(30, 0), seed=3).to(CUDA)
    images, labels = random_images(8, 1), np.repeat([0, 1], 4)
    clean = detector.score_array(images.to(CUDA))
    result = attack(detector, images, labels, norm=norm, eps=0.1, method="ensemble", steps=3, device=CUDA)
    moved = (result.images.cpu() - images).flatten(1)
    size = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    assert float(size.max()) <= 0.1 + 1e-6
    assert (result.scores[:4] >= clean[:4] - 1e-5).all()
    assert (result.scores[4:] <= clean[4:] + 1e-5).all()
    assert np.abs(result.scores - clean).max() > 1e-3


def hardware(folder: Path) -> dict[str, str]:
    """What the first command of a folder ran on."""
    commands = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["commands"]
    found: dict[str, str] = commands[0]["hardware"]
    return found


def test_the_chain_of_commands_runs_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["--data", "digits"]
    assert train_ddpm(["--smoke", "--output_dir", "network", "--normal_class", "3", *data]) == 0
    assert train_backbone(["--smoke", "--output_dir", "backbone", "--exclude_classes", "3", *data]) == 0
    assert hardware(Path("backbone"))["device"].startswith(CUDA)
    fit = ["fit", "--detector", "zarnd", "--backbone", "backbone", *data, "--normal_class", "3"]
    assert diffad([*fit, "--output_dir", "neighbours"]) == 0
    for detector in ("network", "neighbours"):
        run = ["--detector", detector, "--limit", "4", "--n", "100", "--batch_size", "100", "--device", CUDA]
        shared = [*run, "--sigma", "0.5", "--output_dir", f"run-{detector}"]
        assert certify([*shared, "--radii", "0,0.1", "--no_baselines"]) == 0
        assert diffad(["attack", *shared, "--curve", "0.05,0.1", "--steps", "2", "--eot", "2"]) == 0
        assert diffad(["compare", f"run-{detector}", "--output_dir", f"compare-{detector}"]) == 0
        assert hardware(Path(f"run-{detector}"))["gpu"]
