"""How each model of anomalib is built and fitted: its own network and losses, without Lightning.

EfficientAD's fit is `diffad.interop.efficient_ad`.

| name                  | fitted by                                      | settings of anomalib that are kept |
|-----------------------|------------------------------------------------|---|
| `Patchcore`           | a bank of patch features, k-centre selection   | 9 neighbours; 10 % kept (`sampling_ratio`) |
| `Padim`               | a Gaussian at each place                       | features chosen at random (`n_features`) |
| `Stfpm`               | training the student                           | SGD 0.4, momentum 0.9, weight decay 1e-3 |
| `ReverseDistillation` | training bottleneck and decoder                | Adam 0.005, betas 0.5 and 0.99 |
| `Fastflow`            | training the flows                             | Adam 1e-3, weight decay 1e-5 |
| `Draem`               | training on planted noise                      | Adam 1e-4; no textures, a download |
| `EfficientAd`         | training student and autoencoder               | Adam 1e-4, one image a step |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from certify.console import progress
from diffad.interop import efficient_ad
from diffad.interop.extras import optional

LAYERS = ("layer1", "layer2", "layer3")
LEAST_SIDE = 32  # four halvings, and the blur of the anomaly maps needs more than 16 pixels


@dataclass(frozen=True)
class Recipe:
    """A model of anomalib: its file under `anomalib.models.image`, its class, and how it is fitted.

    `arguments` are constructor arguments and their defaults here; `parts` the attributes that hold a network whose
    weights come from a file; `sized` whether the constructor wants the image size; `normalised` whether it expects
    ImageNet's mean and standard deviation removed; `least_side` the smallest images it takes; `own` options of the fit
    besides the common ones, or in their place; `file` the published file of weights, timm's where empty.
    """

    module: str
    attribute: str
    fit: Callable[[nn.Module, Batches, Mapping[str, Any]], None]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    sized: bool = False
    normalised: bool = True
    least_side: int = LEAST_SIDE
    own: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""


@dataclass(frozen=True)
class Batches:
    """The training images as the network sees them, in batches: all in order, or drawn with a seed."""

    images: Tensor
    size: int
    seed: int

    def once(self) -> Iterator[Tensor]:
        """Yield every image once."""
        yield from torch.split(self.images, self.size)

    def drawn(self, steps: int) -> Iterator[Tensor]:
        """Yield `steps` batches, each of different images."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in progress(range(steps), "anomalib", steps):
            chosen = torch.randperm(len(self.images), generator=generator)[: self.size]
            yield self.images[chosen.to(self.images.device)]


def build(recipe: Recipe, arguments: Mapping[str, Any], side: int) -> nn.Module:
    """Return the model with random weights, for images of `side` x `side`."""
    module = optional(f"anomalib.models.image.{recipe.module}.torch_model", extra="anomalib")
    made = {**recipe.arguments, **arguments}
    if recipe.sized:
        made["input_size"] = (side, side)
    if recipe.attribute == "ReverseDistillationModel":
        mode = import_module("anomalib.models.image.reverse_distillation.anomaly_map")
        made["anomaly_map_mode"] = mode.AnomalyMapGenerationMode.ADD
    model: nn.Module = getattr(module, recipe.attribute)(**made)
    return model


def _fit_patchcore(model: Any, batches: Batches, options: Mapping[str, Any]) -> None:
    model.train()
    for batch in batches.once():
        model(batch)
    # as PatchcoreModel.subsample_embedding, which warns of an argument that nobody gave
    everything = torch.vstack(model.embedding_store)
    model.embedding_store.clear()
    sampling = import_module("anomalib.models.components.sampling.k_center_greedy")
    with (
        patch.object(sampling, "tqdm", lambda steps, desc: progress(steps, "coreset", len(steps))),
        patch.object(sampling.KCenterGreedy, "update_distances", _update_distances),
    ):
        model.memory_bank = sampling.KCenterGreedy(everything, options["sampling_ratio"]).sample_coreset()


def _update_distances(sampler: Any, cluster_center: Tensor | None) -> None:
    """As anomalib's, the same values, with one buffer for all differences.

    A new one for every centre, of the size of the features, left the heap so fragmented that 32 000 patches took 23 GB.
    """
    if cluster_center is None:
        return
    if getattr(sampler, "differences", None) is None:
        sampler.differences = torch.empty_like(sampler.features)
    torch.sub(sampler.features, sampler.features[cluster_center].squeeze(), out=sampler.differences)
    distances = torch.linalg.norm(sampler.differences, ord=2, dim=1, keepdim=True)
    if sampler.min_distances is None:
        sampler.min_distances = distances
    else:
        torch.minimum(sampler.min_distances, distances, out=sampler.min_distances)


def _fit_padim(model: Any, batches: Batches, options: Mapping[str, Any]) -> None:
    model.train()
    for batch in batches.once():
        model(batch)
    model.fit()


def _trained(
    loss_of: Callable[[nn.Module], Callable[[Tensor], Tensor]],
    optimiser: Callable[[nn.Module], torch.optim.Optimizer],
) -> Callable[[nn.Module, Batches, Mapping[str, Any]], None]:
    """Return a fit that takes `steps` of the optimiser on the loss of batches."""

    def fit(model: nn.Module, batches: Batches, options: Mapping[str, Any]) -> None:
        model.train()
        loss, steps = loss_of(model), optimiser(model)
        with torch.enable_grad():
            for batch in batches.drawn(options["steps"]):
                steps.zero_grad()
                loss(batch).backward()  # type: ignore[no-untyped-call]
                steps.step()

    return fit


def _plain_loss(module: str, attribute: str) -> Callable[[nn.Module], Callable[[Tensor], Tensor]]:
    """Return a loss of anomalib that takes what the model returns in training."""

    def loss_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
        loss = getattr(import_module(f"anomalib.models.image.{module}.loss"), attribute)()
        return lambda batch: loss(*model(batch))

    return loss_of


def _draem_loss(model: nn.Module) -> Callable[[Tensor], Tensor]:
    loss = import_module("anomalib.models.image.draem.loss").DraemLoss()
    generator = import_module("anomalib.data.utils.generators.perlin").PerlinAnomalyGenerator
    plant = generator(anomaly_source_path=None, blend_factor=(0.1, 1.0))

    def of_batch(batch: Tensor) -> Tensor:
        planted, mask = plant(batch)
        value: Tensor = loss(batch, *_swap(model(planted), mask))
        return value

    return of_batch


def _swap(answer: tuple[Tensor, Tensor], mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    reconstruction, prediction = answer
    return reconstruction, mask, prediction


def _sgd(model: Any) -> torch.optim.Optimizer:
    parameters = model.student_model.parameters()
    return torch.optim.SGD(parameters, lr=0.4, momentum=0.9, weight_decay=0.001)


def _distillation(model: Any) -> torch.optim.Optimizer:
    parameters = [*model.decoder.parameters(), *model.bottleneck.parameters()]
    return torch.optim.Adam(parameters, lr=0.005, betas=(0.5, 0.99))


RECIPES: dict[str, Recipe] = {
    "Patchcore": Recipe(
        "patchcore",
        "PatchcoreModel",
        _fit_patchcore,
        {"backbone": "resnet18", "layers": LAYERS[1:], "pre_trained": False, "num_neighbors": 9},
        ("feature_extractor.feature_extractor",),
    ),
    "Padim": Recipe(
        "padim",
        "PadimModel",
        _fit_padim,
        {"backbone": "resnet18", "layers": LAYERS, "pre_trained": False, "n_features": None},
        ("feature_extractor.feature_extractor",),
    ),
    "Stfpm": Recipe(
        "stfpm",
        "STFPMModel",
        _trained(_plain_loss("stfpm", "STFPMLoss"), _sgd),
        {"backbone": "resnet18", "layers": LAYERS},
        ("teacher_model.feature_extractor",),
    ),
    "ReverseDistillation": Recipe(
        "reverse_distillation",
        "ReverseDistillationModel",
        _trained(_plain_loss("reverse_distillation", "ReverseDistillationLoss"), _distillation),
        {"backbone": "resnet18", "layers": LAYERS, "pre_trained": False},
        ("encoder.feature_extractor",),
        sized=True,
    ),
    "Fastflow": Recipe(
        "fastflow",
        "FastflowModel",
        _trained(
            _plain_loss("fastflow", "FastflowLoss"),
            lambda model: torch.optim.Adam(
                [one for one in model.parameters() if one.requires_grad], lr=0.001, weight_decay=1e-5
            ),
        ),
        {"backbone": "resnet18", "pre_trained": False, "flow_steps": 8},
        ("feature_extractor",),
        sized=True,
    ),
    "Draem": Recipe(
        "draem",
        "DraemModel",
        _trained(_draem_loss, lambda model: torch.optim.Adam(model.parameters(), lr=1e-4)),
        normalised=False,
    ),
    "EfficientAd": Recipe(
        "efficient_ad",
        "EfficientAdModel",
        efficient_ad.fit,
        {"model_size": "small", "teacher_out_channels": 384, "padding": False, "pad_maps": True},
        ("teacher",),
        normalised=False,
        least_side=efficient_ad.LEAST_SIDE,
        own={"batch_size": 1, "penalty": None},
        file="pretrained_teacher_small.pth of anomalib's release efficientad_pretrained_weights",
    ),
}
