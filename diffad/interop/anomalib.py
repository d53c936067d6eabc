"""Models of anomalib as detectors: their raw score, with gradients.

>>> from diffad.interop import AnomalibDetector                                          # doctest: +SKIP
>>> detector = AnomalibDetector("Patchcore", {"weights": "resnet18.safetensors"}).fit(normals)   # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from certify.checks import InputError, check_choice
from certify.files import write_atomic
from diffad.backbones.containers import read_weights
from diffad.folder import one_line
from diffad.interop.anomalib_models import RECIPES, Batches, build
from diffad.interop.foreign import ForeignDetector
from diffad.interop.outliers import numpy_seeded
from diffad.interop.regrad import gradients_through, without_downloads

TENSORS = "anomalib.safetensors"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet
OWN = {"weights": None, "size": None, "batch_size": 32, "steps": 200, "sampling_ratio": 0.1}


class AnomalibDetector(ForeignDetector):
    """A model of anomalib; the score is its `pred_score` before any threshold or normalisation.

    anomalib computes features without gradients, and PatchCore its distances in half the digits. Here the former is
    undone while the score is differentiated (`diffad.interop.regrad`) and the latter computed in float64, with a finite
    slope where the distance is zero; the contract's finite differences hold that in place. Images are resized to `size`
    inside, repeated over three channels and normalised: the attacked image is the one given to `score`.

    Args:
        what: a key of `diffad.interop.anomalib_models.RECIPES`.
        options: `weights`, the safetensors file with the backbone's weights as timm names them (of EfficientAD the
            teacher's, as anomalib publishes them), or `random`; needed where there is a backbone, since nothing is
            downloaded. `size`, side of the images inside; None: their own, at least 32 (EfficientAD 256). `batch_size`
            and `steps` of a model that is trained, `sampling_ratio` of PatchCore, `penalty` of EfficientAD, a folder of
            natural images. What else is given goes to the model: `backbone`, `layers` (joined by +), `num_neighbors`,
            `n_features`, `flow_steps`, `model_size`.
    """

    name: ClassVar[str] = "anomalib"
    min_images = 2

    def __init__(self, what: str = "Patchcore", options: Mapping[str, Any] | None = None) -> None:
        super().__init__(check_choice(what, tuple(RECIPES), "anomalib model"), options)
        self._recipe = RECIPES[what]
        self._own = {**OWN, **self._recipe.own}
        allowed = [*self._own, *(name for name in self._recipe.arguments if name != "pre_trained")]
        unknown = sorted(set(self.options) - set(allowed))
        if unknown:
            raise InputError(f"{self._title}: unknown options {unknown}, allowed are {', '.join(allowed)}")
        least_batch = min(2, self._own["batch_size"])  # batch normalisation needs two images
        for name, least in (
            ("size", self._recipe.least_side),
            ("batch_size", least_batch),
            ("steps", 1),
        ):
            value = self._option(name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise InputError(
                    f"{self._title}: got {name} = {value!r}, need a whole number of at least {least}"
                )
        ratio = self._option("sampling_ratio")
        if not isinstance(ratio, int | float) or not 0 < ratio <= 1:
            raise InputError(f"{self._title}: got sampling_ratio = {ratio!r}, need a share in (0, 1]")
        self.model: nn.Module | None = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments; of files and folders the name alone, since the folder holds what was read."""
        options = dict(self.options)
        for name in {"weights", "penalty"} & {name for name, value in options.items() if value is not None}:
            options[name] = Path(str(options[name])).name
        return {"what": self.what, "options": options}

    def _option(self, name: str) -> Any:
        return self.options.get(name, self._own[name])

    # ---- building and fitting

    def _prepare(self, train: Tensor, seed: int) -> None:
        weights = self._weights()
        devices = [train.device] if train.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), numpy_seeded(seed):
            torch.manual_seed(seed)
            model = self._build()
            for part in self._recipe.parts if weights is not None else ():
                load_network(model.get_submodule(part), weights or {}, self._title)
            model.to(train.device)
            batches = Batches(self._inside(train).float(), int(self._option("batch_size")), seed)
            try:
                self._recipe.fit(model, batches, {name: self._option(name) for name in self._own})
            except (RuntimeError, ValueError) as error:
                raise InputError(f"{self._title}: cannot be fitted ({one_line(error)})") from error
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.data = (
                tensor.data.contiguous()
            )  # as a folder gives it back, so that the same bits are computed
        self.model = model.eval().requires_grad_(False)

    def _build(self) -> nn.Module:
        arguments = {name: value for name, value in self.options.items() if name not in self._own}
        if isinstance(arguments.get("layers"), str):
            arguments["layers"] = arguments["layers"].split("+")
        try:
            with without_downloads():
                model = build(self._recipe, arguments, self._side())
        except InputError:
            raise
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise InputError(f"{self._title}: cannot be built ({one_line(error)})") from error
        if self.what == "Patchcore":
            model.euclidean_dist = distances  # type: ignore[assignment]  # a static method, called on the instance
        return model

    def _weights(self) -> dict[str, Tensor] | None:
        """Return the tensors of the file of weights; None for random ones, or without a backbone."""
        if not self._recipe.parts or self._option("weights") == "random":
            return None
        given = self._option("weights")
        if given is None or not Path(str(given)).is_file():
            backbone = self.options.get("backbone", self._recipe.arguments.get("backbone"))
            wanted = (
                self._recipe.file or f"the safetensors of timm's {backbone} (https://huggingface.co/timm)"
            )
            raise InputError(
                f"{self._title}: {'no weights named' if given is None else f'{given!r} is no file'}; give "
                f"weights=FILE, {wanted}, or weights=random"
            )
        if self._recipe.file and Path(str(given)).suffix != ".safetensors":
            return read_weights(Path(str(given)))[0]
        try:
            found: dict[str, Tensor] = load_file(str(given))
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self._title}: {given} is no safetensors file ({one_line(error)})") from error
        return found

    def _restore(self, directory: Path) -> None:
        path = directory / TENSORS
        if not path.is_file():
            raise InputError(f"{directory}: holds no {TENSORS}; save the detector again")
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
            model = self._build()
        try:
            model.load_state_dict(load_file(path), strict=True)
        except (RuntimeError, SafetensorError, OSError) as error:
            raise InputError(f"{path}: {one_line(error)}") from error
        self.model = model.eval().requires_grad_(False)

    def _save_parts(self, directory: Path) -> None:
        assert self.model is not None
        tensors = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        write_atomic(directory / TENSORS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))

    # ---- scoring

    def _foreign(self, images: Tensor) -> Tensor:
        scores: Tensor = self._answer(images).pred_score
        return scores

    def anomaly_map(self, images: Tensor) -> Tensor:
        """Return anomalib's map (b, h, w), resized to the images."""
        self._check_input(images)
        with torch.no_grad():
            found: Tensor = self._answer(images).anomaly_map
        found = found if found.ndim == 4 else found[:, None]
        return F.interpolate(found, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]

    def _answer(self, images: Tensor) -> Any:
        if self.model is None:
            raise InputError(f"{self._title}: is not fitted; call fit(normal images) or load a folder")
        dtype = next(self.model.parameters()).dtype
        with gradients_through(self.model, "anomalib"):
            return self.model(self._inside(images).to(dtype))

    def _side(self) -> int:
        given = self._option("size")
        return int(given) if given is not None else max(self._recipe.least_side, *self._require_fitted()[1:])

    def _inside(self, images: Tensor) -> Tensor:
        """Return images (b, 3, size, size) as the network wants them."""
        side = self._side()
        inside = images
        if tuple(images.shape[2:]) != (side, side):
            inside = F.interpolate(
                images, size=(side, side), mode="bilinear", align_corners=False, antialias=True
            )
        inside = inside.expand(-1, 3, -1, -1)
        if not self._recipe.normalised:
            return inside
        mean, std = (inside.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        return (inside - mean) / std


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the Euclidean distances (..., n, m) of rows as `PatchcoreModel.euclidean_dist` defines them.

    In float64: the expansion |x|^2 - 2 xy + |y|^2 loses half the digits near the bank, and with them the independence
    of the other images of a batch. The slope of a distance that is zero is zero.
    """
    a, b = x.double(), y.double()
    squares = (a.square().sum(-1, keepdim=True) - 2 * a @ b.mT + b.square().sum(-1)[..., None, :]).clamp(
        min=0
    )
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0).to(x.dtype)


def load_network(network: nn.Module, tensors: Mapping[str, Tensor], title: str) -> None:
    """Fill a network from the tensors of the whole one: all of its own names must be there, with their shapes.

    The file holds layers besides that are not used here, such as the classifier.
    """
    wanted = network.state_dict()
    missing = sorted(
        name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")
    )
    if missing:
        raise InputError(
            f"{title}: the file of weights lacks {len(missing)} of {len(wanted)} tensors ({missing[0]}, ...)"
        )
    try:
        network.load_state_dict({name: tensors.get(name, wanted[name]) for name in wanted}, strict=True)
    except RuntimeError as error:
        raise InputError(f"{title}: {one_line(error)}") from error
