"""Detectors of pytorch-ood on the logits or features of a backbone, with gradients.

>>> from diffad.backbones import load_backbone
>>> from diffad.interop import PytorchOODDetector
>>> backbone = load_backbone("runs/classifier")                                           # doctest: +SKIP
>>> detector = PytorchOODDetector.from_backbone(backbone, "ViM", {"d": 64}).fit(normals)   # doctest: +SKIP
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from certify.checks import InputError, check_choice
from certify.console import progress
from diffad.backbones import Backbone, load_backbone
from diffad.folder import one_line
from diffad.interop.extras import optional
from diffad.interop.foreign import ForeignDetector
from diffad.interop.regrad import attached, without_decorators

P = TypeVar("P", bound="PytorchOODDetector")

BACKBONE = "backbone"
LOGITS, FEATURES, MAPS = "logits", "features", "feature_maps"
# Arguments of their constructors that the backbone fills, or that are no JSON values.
_FILLED = ("self", "model", "encoder", "backbone", "head", "w", "b", "detector")
_BATCH = 64


@dataclass(frozen=True)
class Kind:
    """What a detector of pytorch-ood reads: logits, features, or features as maps of one place.

    `fitted` where it learns from normals, `gradient` whether its score is differentiable, `single` where it mixes what
    it keeps in float32 with what it is given, so that this has to be float32 too, and not float64.
    """

    reads: str
    fitted: bool = True
    gradient: bool = True
    single: bool = False


# ReAct, ASH, SCALE and VRA shape the pooled features in front of the head, as OpenOOD has them do.
KINDS: dict[str, Kind] = {
    "MaxSoftmax": Kind(LOGITS, fitted=False),
    "MaxLogit": Kind(LOGITS, fitted=False),
    "EnergyBased": Kind(LOGITS, fitted=False),
    "Entropy": Kind(LOGITS, fitted=False),
    "GEN": Kind(LOGITS, fitted=False),
    "KLMatching": Kind(LOGITS),
    "Mahalanobis": Kind(FEATURES),
    "RMD": Kind(FEATURES),
    "GMM": Kind(FEATURES),
    "ViM": Kind(FEATURES),
    "KNN": Kind(FEATURES, gradient=False),
    "fDBD": Kind(FEATURES),
    "NCI": Kind(FEATURES),
    "NNGuide": Kind(FEATURES, single=True),
    "SHE": Kind(FEATURES),
    "DICE": Kind(FEATURES, single=True),
    "ReAct": Kind(MAPS),
    "VRA": Kind(MAPS),
    "ASH": Kind(MAPS, fitted=False),
    "SCALE": Kind(MAPS, fitted=False),
}


class PytorchOODDetector(ForeignDetector):
    """A detector of pytorch-ood; the score is its `predict`, higher = out of distribution = more anomalous.

    Almost every `predict` there cuts its gradients, by `torch.no_grad`, `detach` or `.data`. They are left out here
    (`diffad.interop.regrad`), and finite differences in the tests hold that in place. KNN searches outside of PyTorch
    and stays a black box; `zarnd` is the same score with gradients. MaxSoftmax and Entropy are flat where the network
    is sure, which stops an attack on them: `msp` ranks as the former does and is not.

    The class of a training image, where one is asked for, is the one given to `fit_labelled`; `fit` alone takes the one
    that the network sees (`fit_info["labels_given"]` says which). A folder keeps the network
    and the features or logits of the training images; loading fits again and compares the scores of the probe.

    Args:
        what: a key of `KINDS`, the class of `pytorch_ood.detector`.
        options: its constructor arguments besides the network, such as `d` of ViM, `p` of DICE, `k` of KNN.
    """

    name: ClassVar[str] = "pytorch_ood"
    min_images = 2
    rows: Tensor
    labels: Tensor

    def __init__(self, what: str = "EnergyBased", options: Mapping[str, Any] | None = None) -> None:
        super().__init__(check_choice(what, tuple(KINDS), "pytorch_ood detector"), options)
        self._kind = KINDS[what]
        self.has_gradient = self._kind.gradient
        self.backbone: Backbone | None = None
        self._theirs: Any = None
        self._labels_given: tuple[str, ...] | None = None
        self.register_buffer("rows", torch.empty(0))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64))

    @classmethod
    def from_backbone(
        cls: type[P], backbone: Backbone, what: str, options: Mapping[str, Any] | None = None
    ) -> P:
        """A detector on this network, frozen; call `fit` next. It must have a head for at least two classes."""
        detector = cls(what, options)
        if backbone.classes < 2:
            raise InputError(
                f"{detector._title}: the backbone has {backbone.classes} logits, need at least 2; train a classifier "
                "by `accelerate launch -m diffad.backbones.train`"
            )
        detector.backbone = backbone.eval().requires_grad_(False)
        return detector

    @classmethod
    def from_spec(cls: type[P], what: str, options: Mapping[str, Any]) -> P:
        """As the command line asks for it; `backbone=FOLDER` names the classifier."""
        own = {name: value for name, value in options.items() if name != BACKBONE}
        cls(what, own)  # a wrong name comes before a missing folder
        if BACKBONE not in options:
            raise InputError(
                f"{cls.name}:{what}: names no network; give backbone=FOLDER, a classifier of "
                "`accelerate launch -m diffad.backbones.train` or `diffad backbones convert`"
            )
        return cls.from_backbone(load_backbone(str(options[BACKBONE])), what, own)

    # ---- fitting

    def fit_labelled(self: P, train: Float[Tensor, "n c h w"], classes: Sequence[str], **options: Any) -> P:
        """Fit on normal images with the name of the class of each; `options` as those of `fit`.

        Raises:
            InputError: unless each image has one class; of SHE also for a class that the network does not know.
        """
        if len(classes) != len(train):
            raise InputError(
                f"{self._title}: got {len(classes)} classes for {len(train)} images; need one name an image"
            )
        self._labels_given = tuple(str(name) for name in classes)
        try:
            return self.fit(train, **options)
        finally:
            self._labels_given = None

    def _prepare(self, train: Tensor, seed: int) -> None:
        self.rows, self.labels = torch.empty(0), torch.empty(0, dtype=torch.int64)
        self._theirs = None
        network = self._network()  # before the package is asked for
        if self._kind.fitted:
            parts = progress(
                torch.split(train, _BATCH), "normals through the network", -(-len(train) // _BATCH)
            )
            read = [(self._read(batch), network.logits(self._placed(batch)).argmax(1)) for batch in parts]
            self.rows = torch.cat([rows for rows, _ in read]).float()
            self.labels = torch.cat([labels for _, labels in read])
            if self._labels_given is not None:
                numbers = self._numbers(self._labels_given).to(self.labels)
                self.labels = numbers.repeat(
                    len(train) // len(numbers)
                )  # noisy copies come round after round
            self.fit_info["labels_given"] = int(self._labels_given is not None)
        self._fit_theirs()

    def _numbers(self, classes: Sequence[str]) -> Tensor:
        """Return the logit (n,) of each class; its place among the given ones if the network knows others."""
        names = self._network().class_names
        unknown = sorted(set(classes) - set(names))
        if unknown and self.what == "SHE":
            raise InputError(
                f"{self._title}: compares with logits, got training images of class {', '.join(unknown)}; the network "
                f"knows {', '.join(names)}"
            )
        numbered = tuple(sorted(set(classes))) if unknown else names
        return torch.tensor([numbered.index(name) for name in classes])

    def _restore(self, directory: Path) -> None:
        self.backbone = load_backbone(directory / BACKBONE)
        self._fit_theirs()

    def _save_parts(self, directory: Path) -> None:
        self._network().save_pretrained(directory / BACKBONE)

    def _fit_theirs(self) -> None:
        made = getattr(optional("pytorch_ood.detector", extra="interop"), self.what)
        try:
            # their covariances are of the default type, and lose what float32 has when they are inverted
            with default_dtype(torch.float32 if self._kind.single else torch.float64):
                theirs = made(**self._arguments(made))
                if self._kind.fitted:
                    # distances to class means want classes that are numbered without gaps; SHE compares with logits
                    seen = (
                        self.labels
                        if self.what == "SHE"
                        else torch.unique(self.labels, return_inverse=True)[1]
                    )
                    getattr(theirs, f"fit_{self._kind.reads}")(self._given(self.rows), seen)
        except InputError:
            raise
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise InputError(
                f"{self._title}: cannot be fitted ({type(error).__name__}: {one_line(error) or 'no reason given'})"
            ) from error
        self._theirs = theirs

    def _arguments(self, made: Any) -> dict[str, Any]:
        """Return what the constructor wants: the options, and the head of the network in the forms asked for."""
        wanted = inspect.signature(made.__init__).parameters
        allowed = [
            name for name, one in wanted.items() if name not in _FILLED and one.kind is not one.VAR_KEYWORD
        ]
        unknown = sorted(set(self.options) - set(allowed))
        if unknown:
            known = ", ".join(allowed) or "none"
            raise InputError(f"{self._title}: unknown arguments {unknown}, allowed are {known}")
        missing = [
            name
            for name in allowed
            if name not in self.options and wanted[name].default is inspect.Parameter.empty
        ]
        if missing:
            raise InputError(f"{self._title}: needs {missing[0]}=VALUE, which has no default in pytorch-ood")
        network = [name for name in ("model", "encoder", "backbone") if name in wanted]
        arguments: dict[str, Any] = {**dict.fromkeys(network), **self.options}
        if {"head", "w", "b"} & set(wanted):
            head = Head.of(self._network(), self._title)
            parts = {"head": head, "w": head.weight.detach(), "b": head.bias.detach()}
            arguments |= {name: part for name, part in parts.items() if name in wanted}
        return arguments

    # ---- scoring

    def _foreign(self, images: Tensor) -> Tensor:
        if self._theirs is None:
            raise InputError(f"{self._title}: is not fitted; call fit(normal images) or load a folder")
        rows = self._given(self._read(images))
        self._theirs.to(rows.device)
        predict = without_decorators(getattr(type(self._theirs), f"predict_{self._kind.reads}"))
        with attached():
            scores: Tensor = predict(self._theirs, rows)
        return scores

    def _read(self, images: Tensor) -> Tensor:
        """Return logits (b, classes) or features (b, d), where the network is; differentiable."""
        placed = self._placed(images)
        return (
            self._network().logits(placed) if self._kind.reads == LOGITS else self._network().features(placed)
        )

    def _given(self, rows: Tensor) -> Tensor:
        """Return rows in the form and the precision that the detector of pytorch-ood works in."""
        rows = rows.float() if self._kind.single else rows.double()
        return rows[:, :, None, None] if self._kind.reads == MAPS else rows

    def _network(self) -> Backbone:
        if self.backbone is None:
            raise InputError(f"{self._title}: has no backbone; use from_backbone, or backbone=FOLDER")
        return self.backbone

    def _placed(self, images: Tensor) -> Tensor:
        weights = next(self._network().network.parameters())
        return images.to(weights.device, torch.promote_types(images.dtype, weights.dtype))


class Head(nn.Linear):
    """The linear head of a network, in the precision of what it is given, which may be a map of one place."""

    @classmethod
    def of(cls, backbone: Backbone, title: str) -> Head:
        """Return a copy of the one layer of that shape in the network; `InputError` where there is no such one."""
        found = [
            one
            for one in backbone.network.modules()
            if isinstance(one, nn.Linear)
            and (one.in_features, one.out_features) == (backbone.dim, backbone.classes)
        ]
        if len(found) != 1:
            raise InputError(
                f"{title}: reads the weights of a linear head, the network has {len(found)} layers "
                f"{backbone.dim} -> {backbone.classes}; choose a detector of the logits, such as EnergyBased"
            )
        head: Head = skip_init(cls, backbone.dim, backbone.classes)  # type: ignore[no-untyped-call]
        head.to(found[0].weight).requires_grad_(False)
        bias = found[0].bias
        head.weight.data = found[0].weight.detach().clone()
        head.bias.data = torch.zeros_like(head.bias) if bias is None else bias.detach().clone()
        return head

    def forward(self, rows: Tensor) -> Tensor:
        """Return class scores (b, classes) of features (b, d) or (b, d, 1, 1)."""
        rows = rows.flatten(1)
        return F.linear(rows, self.weight.to(rows.dtype), self.bias.to(rows.dtype))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let new tensors be of this type while it lasts. Not for several threads at once."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
