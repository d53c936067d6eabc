"""A small instance of every detector, which the contract runs through, and the toy images that it is judged on."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffad import Detector, detector_class
from diffad.backbones import Backbone, ResNet
from diffad.baselines.autoencoder import Autoencoder
from diffad.baselines.closed_form import ClosedForm
from diffad.baselines.deep_svdd import DeepSVDD
from diffad.baselines.generated_nn import GeneratedNN
from diffad.baselines.lipschitz_net import LipschitzNet
from diffad.baselines.patch_nn import PatchNN
from diffad.baselines.pca import PCA
from diffad.baselines.pixel_mean import PixelMean
from diffad.baselines.pixel_nn import PixelNN
from diffad.interop import (
    AnomalibDetector,
    CallableDetector,
    OnnxDetector,
    PyODDetector,
    PytorchOODDetector,
    SklearnDetector,
)

SHAPE = (1, 8, 8)


def toy_images(count: int, *, seed: int, anomalous: bool = False) -> Tensor:
    """Smooth gradients of random contrast; anomalies carry a bright 3 x 3 spot."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(-1, 1, SHAPE[2]).expand(SHAPE)
    contrast = 0.1 + 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    images = 0.5 + contrast * ramp + 0.02 * torch.randn(count, *SHAPE, generator=generator)
    if anomalous:
        corners = torch.randint(0, 6, (count, 2), generator=generator).tolist()
        for image, (row, column) in zip(images, corners, strict=True):
            image[:, row : row + 3, column : column + 3] = 1.0
    return images.clamp(0, 1)


TRAIN, CALIBRATION = toy_images(60, seed=0), toy_images(40, seed=1)
NORMALS, ANOMALIES = toy_images(30, seed=2), toy_images(30, seed=3, anomalous=True)
TEST = torch.cat([NORMALS, ANOMALIES])


def diffusion() -> Detector:
    """An untrained network that predicts the clean image: it answers every image with nearly the same one."""
    from diffad.diffusion.detector import DiffusionDetector
    from diffad.diffusion.model import Denoiser

    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = Denoiser.build(
            SHAPE, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, prediction_type="sample"
        )
    return DiffusionDetector.from_denoiser(denoiser, SHAPE, draws=2)


def purified() -> Detector:
    """An untrained network, which removes little of a little noise, in front of the distance to the nearest normal."""
    from diffad.diffusion.model import Denoiser
    from diffad.diffusion.purified import Purified

    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = Denoiser.build(SHAPE, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1)
    return Purified.of(PixelNN(), denoiser, sigma=0.05, draws=1)


def zarnd(**options: object) -> Detector:
    """A random network of a few channels."""
    from diffad.zarnd import Zarnd

    arguments = {"width": 4, "blocks": [1, 1]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet(width=4, blocks=(1, 1))
    return Zarnd.from_backbone(Backbone(network, arch="resnet", arguments=arguments, resolution=8), **options)


def zarnd_linear(**options: object) -> Detector:
    """Orthonormal directions at random: the features have a Lipschitz constant."""
    from diffad.backbones.projections import random_projection
    from diffad.zarnd import Zarnd

    return Zarnd.from_backbone(random_projection(40, SHAPE[2], SHAPE[0]), **options)


def cobra(seed: int = 0, **options: object) -> Detector:
    """A random network of a few channels; of a classifier that nobody trained, the seed decides which side is which."""
    from diffad.cobra import Cobra, Heads

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network, heads = ResNet(width=4, blocks=(1, 1), classes=0, in_channels=1), Heads(8, 16)
    arguments = {"width": 4, "blocks": [1, 1], "classes": 0, "in_channels": 1}
    backbone = Backbone(network, arch="resnet", arguments=arguments, resolution=8)
    return Cobra.from_network(backbone, heads, **options)


def atd(seed: int, space: str = "feature") -> Detector:
    """Random players; of a discriminator that nobody trained, the seed decides which side is which."""
    from diffad.atd import Atd, FeatureDiscriminator, PixelDiscriminator

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ResNet(width=4, blocks=(1, 1), classes=0, in_channels=1)
        feature, pixel = FeatureDiscriminator(8, (12, 6)), PixelDiscriminator(1, 8, (4, 6))
    for discriminator in (feature, pixel):  # the initial weights give logits of about 1e-5
        discriminator.layers[-1].weight.data *= 1e4
    if space == "pixel":
        return Atd.from_network(pixel)
    arguments = {"width": 4, "blocks": [1, 1], "classes": 0, "in_channels": 1}
    return Atd.from_network(feature, Backbone(network, arch="resnet", arguments=arguments, resolution=8))


def from_grey(images: Tensor) -> Tensor:
    """Distance to a grey image: somebody else's score, with a gradient."""
    return torch.linalg.vector_norm(images.flatten(1) - 0.5, dim=1)


def callable_score() -> Detector:
    """`from_grey` by a name that can be imported."""
    return CallableDetector(f"{__name__}:from_grey")


def pyod() -> Detector:
    pytest.importorskip("pyod")
    return PyODDetector("KNN")


def onnx() -> Detector:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    return OnnxDetector(str(grey_graph()))


def anomalib(what: str, **options: object) -> Detector:
    """A model of anomalib on timm's smallest network with random weights."""
    with warnings.catch_warnings():  # it imports from where timm has moved its layers away
        warnings.simplefilter("ignore")
        pytest.importorskip(f"anomalib.models.image.{what.lower()}.torch_model")
    return AnomalibDetector(what, {"backbone": "test_resnet", "weights": "random", **options})


@cache
def grey_graph() -> Path:
    """`from_grey` as an ONNX file."""
    from onnx import TensorProto, helper, save

    grey = helper.make_tensor("grey", TensorProto.FLOAT, [1], [0.5])
    nodes = [
        helper.make_node("Sub", ["images", "grey"], ["difference"]),
        helper.make_node("ReduceL2", ["difference"], ["score"], axes=[1, 2, 3], keepdims=0),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *SHAPE])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "from_grey", [images], [score], [grey])
    path = Path(tempfile.mkdtemp()) / "grey.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def small_classifier(classes: int, seed: int) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ResNet(width=4, blocks=(1, 1), classes=classes)
    arguments = {"width": 4, "blocks": [1, 1], "classes": classes}
    return Backbone(network, arch="resnet", arguments=arguments, resolution=8)


@cache
def trained() -> Backbone:
    """It tells three contrasts apart, and gives images with a spot small logits of all of them (outlier exposure)."""
    backbone = small_classifier(3, 0).requires_grad_(True)
    network = backbone.network.train()
    contrast = TRAIN.flatten(1).std(1)
    labels = (contrast[:, None] > contrast.quantile(torch.tensor([1 / 3, 2 / 3]))).sum(1)
    shown = torch.cat([TRAIN, toy_images(60, seed=9, anomalous=True)]).expand(-1, 3, -1, -1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(150):
        normals, spots = network(shown).split(60)
        large = F.softplus(4 - normals.logsumexp(1)).mean() + F.softplus(spots.logsumexp(1)).mean()
        loss = F.cross_entropy(normals, labels) - F.log_softmax(spots, 1).mean() + large
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return backbone.eval()


@cache
def centred(seed: int) -> Backbone:
    """Nobody trained it: logits of the toy images have mean 0 and standard deviation 1; of others the seed decides.

    For scores that come out otherwise on each training: rounding errors, which differ between processors, grow in one.
    """
    backbone = small_classifier(4, seed)
    backbone.network.fc.weight /= backbone.logits(TRAIN).std(0)[:, None]
    backbone.network.fc.bias -= backbone.logits(TRAIN).mean(0)
    return backbone


def ood_score(name: str, backbone: Callable[[], Backbone] = trained, **options: object) -> Detector:
    return detector_class(name).from_backbone(copy.deepcopy(backbone()), **options)


def pytorch_ood(what: str, **options: object) -> Detector:
    pytest.importorskip("pytorch_ood.detector")
    return PytorchOODDetector.from_backbone(copy.deepcopy(trained()), what, options)


# Several configurations of a detector each get their own entry: "name" or "name:what is special".
FACTORIES: dict[str, Callable[[], Detector]] = {
    "pixel_mean": PixelMean,
    "pca": lambda: PCA(n_components=3),
    "pixel_nn": PixelNN,
    "pixel_nn:k=3": lambda: PixelNN(k=3),
    "patch_nn": lambda: PatchNN(patch_size=3, bank_size=500),
    "patch_nn:projected": lambda: PatchNN(
        patch_size=4, stride=3, bank_size=200, selection="k_centre", remove_mean=True, n_components=6
    ),
    "closed_form": lambda: ClosedForm(sigma=0.5, draws=5),
    "generated_nn": lambda: GeneratedNN(generated=40, sigmas=(1.0, 0.5)).attach(ClosedForm().fit(TRAIN)),
    "autoencoder": lambda: Autoencoder(hidden=32, code=4, steps=200),
    "autoencoder:adversarial": lambda: Autoencoder(hidden=32, code=4, steps=200, adversarial_eps=0.02),
    "deep_svdd": lambda: DeepSVDD(width=8, code=16, steps=100),
    "deep_svdd:soft_boundary": lambda: DeepSVDD(width=8, code=16, steps=100, nu=0.1),
    "lipschitz_net": lambda: LipschitzNet(width=32, steps=200, margin=0.5, around=4),
    "diffusion": diffusion,
    "zarnd": zarnd,
    "zarnd:code": lambda: zarnd(normalize=True, squared=True, k=3, bank_size=30),
    "zarnd:linear": zarnd_linear,
    "zarnd:linear, k=1": lambda: zarnd_linear(k=1, bank_size=30),
    "zarnd:index": lambda: zarnd(index="faiss_hnsw"),
    "cobra": cobra,
    "cobra:classifier": lambda: cobra(2, score="classifier"),
    "cobra:sum": lambda: cobra(2, score="sum"),
    "cobra:released": lambda: cobra(1, score="ensemble_released"),
    "atd": lambda: atd(2),
    "atd:pixel": lambda: atd(45, "pixel"),
    "purified": purified,
    "callable": callable_score,
    "sklearn": lambda: SklearnDetector("IsolationForest", {"n_estimators": 60}),
    "sklearn:density": lambda: SklearnDetector("KernelDensity", {"bandwidth": 0.3}),
    "pyod": pyod,
    "pytorch_ood": lambda: pytorch_ood("EnergyBased"),
    "pytorch_ood:features": lambda: pytorch_ood("ViM", d=3),
    "pytorch_ood:maps": lambda: pytorch_ood("ReAct"),
    "pytorch_ood:black_box": lambda: pytorch_ood("KNN", k=3),
    "onnx": onnx,
    "msp": lambda: ood_score("msp"),
    "max_logit": lambda: ood_score("max_logit"),
    "energy": lambda: ood_score("energy"),
    "mahalanobis": lambda: ood_score("mahalanobis", ridge=1e-3),
    "relative_mahalanobis": lambda: ood_score("relative_mahalanobis", lambda: centred(8), ridge=1e-3),
    "openmax": lambda: ood_score("openmax", lambda: centred(26)),
    "anomalib": lambda: anomalib("Patchcore", layers="layer1+layer2"),
    "anomalib:padim": lambda: anomalib("Padim", layers="layer1+layer2", n_features=20),
}
