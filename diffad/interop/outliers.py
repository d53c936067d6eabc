"""Outlier detectors of scikit-learn and PyOD on pixels, or on the features of a backbone.

>>> import torch
>>> from diffad.interop import SklearnDetector
>>> detector = SklearnDetector("IsolationForest", {"n_estimators": 10}).fit(torch.rand(20, 1, 4, 4))
>>> detector.score(torch.rand(3, 1, 4, 4)).shape
torch.Size([3])
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError, check_choice
from certify.types import FloatArray
from diffad.backbones import Backbone, load_backbone
from diffad.folder import one_line
from diffad.interop.extras import optional
from diffad.interop.foreign import ForeignDetector

O = TypeVar("O", bound="OutlierDetector")  # noqa: E741  as D and F elsewhere

PIXELS, BACKBONE = "pixels", "backbone"
_BATCH = 64

# Class: module. Each has score_samples, higher = more normal.
SKLEARN: dict[str, str] = {
    "IsolationForest": "sklearn.ensemble",
    "LocalOutlierFactor": "sklearn.neighbors",
    "OneClassSVM": "sklearn.svm",
    "EllipticEnvelope": "sklearn.covariance",
    "KernelDensity": "sklearn.neighbors",
    "GaussianMixture": "sklearn.mixture",
}
# Class: module of pyod.models. Each has decision_function, higher = more anomalous.
PYOD: dict[str, str] = {
    "IForest": "iforest",
    "ECOD": "ecod",
    "COPOD": "copod",
    "HBOS": "hbos",
    "KNN": "knn",
    "LOF": "lof",
    "OCSVM": "ocsvm",
    "PCA": "pca",
    "MCD": "mcd",
    "GMM": "gmm",
    "KDE": "kde",
    "INNE": "inne",
}
ONE_BY_ONE = ("ECOD", "COPOD")  # they rank the images of a batch among each other


class OutlierDetector(ForeignDetector):
    """What both libraries share: rows of features, refitted from the folder, no gradient.

    A fitted estimator can be stored by pickle only, which runs code when it is read. The folder keeps the training
    features instead, with the seed and the arguments; loading fits again and compares the scores of the probe. Another
    version of the library that fits differently is refused.

    Args:
        what: class of the estimator.
        options: its constructor arguments; `random_state` is the seed of `fit` unless given.
        features: `pixels`, or `backbone` for the features of the network given to `from_backbone`.
    """

    min_images = 2
    rows: Tensor
    classes: ClassVar[Mapping[str, str]]

    def __init__(self, what: str, options: Mapping[str, Any] | None = None, features: str = PIXELS) -> None:
        super().__init__(check_choice(what, tuple(self.classes), f"{self.name} detector"), options)
        self.features = check_choice(features, (PIXELS, BACKBONE), "features")
        self.has_gradient = False
        self.backbone: Backbone | None = None
        self._estimator: Any = None
        self.register_buffer("rows", torch.empty(0))

    @classmethod
    def from_backbone(
        cls: type[O], backbone: Backbone, what: str, options: Mapping[str, Any] | None = None
    ) -> O:
        """A detector on the features of this network, frozen; call `fit` next."""
        detector = cls(what, options, BACKBONE)
        detector.backbone = backbone
        return detector

    @classmethod
    def from_spec(cls: type[O], what: str, options: Mapping[str, Any]) -> O:
        """As the command line asks for it; `backbone=FOLDER` names the network whose features are compared."""
        own = {name: value for name, value in options.items() if name != BACKBONE}
        if BACKBONE in options:
            return cls.from_backbone(load_backbone(str(options[BACKBONE])), what, own)
        return cls(what, own)

    @property
    def score_name(self) -> str:
        """The class, with what it looks at."""
        return self.what if self.features == PIXELS else f"{self.what} on features"

    @abstractmethod
    def _class(self) -> Any:
        """Import the class of the estimator."""

    @abstractmethod
    def _outlyingness(self, rows: FloatArray) -> FloatArray:
        """Return the scores (b,) of rows (b, d), higher = more anomalous."""

    def _prepare(self, train: Tensor, seed: int) -> None:
        rows = [self._rows(batch) for batch in torch.split(train, _BATCH)]
        self.rows = torch.cat(rows)
        self._fit_rows(seed)

    def _restore(self, directory: Path) -> None:
        if self.features == BACKBONE:
            self.backbone = load_backbone(directory / BACKBONE)
        self._fit_rows(int(self.fit_info["seed"]))

    def _save_parts(self, directory: Path) -> None:
        if self.backbone is not None:
            self.backbone.save_pretrained(directory / BACKBONE)

    def _fit_rows(self, seed: int) -> None:
        made = self._class()
        allowed = made().get_params()
        unknown = sorted(set(self.options) - set(allowed))
        if unknown:
            raise InputError(f"{self._title}: unknown arguments {unknown}, allowed are {', '.join(allowed)}")
        seeded = {"random_state": seed} if "random_state" in allowed else {}
        try:
            with numpy_seeded(seed):
                self._estimator = made(**{**seeded, **self.options}).fit(_float64(self.rows))
        except (TypeError, ValueError) as error:
            raise InputError(f"{self._title}: {one_line(error)}") from error

    def _rows(self, images: Tensor) -> Tensor:
        """Return the features (b, d), float32, of images on any device."""
        if self.features == PIXELS:
            return images.detach().flatten(1).float()
        if self.backbone is None:
            raise InputError(f"{self._title}: has no backbone; use from_backbone, or backbone=FOLDER")
        with torch.no_grad():
            return self.backbone.features(images.to(next(self.backbone.network.parameters()))).float()

    def _foreign(self, images: Tensor) -> FloatArray:
        if self._estimator is None:
            raise InputError(f"{self._title}: is not fitted; call fit(normal images) or load a folder")
        return self._outlyingness(_float64(self._rows(images)))


class SklearnDetector(OutlierDetector):
    """An outlier detector or density of scikit-learn; the score is minus `score_samples`.

    See `OutlierDetector` for the arguments and for what a folder holds.
    """

    name: ClassVar[str] = "sklearn"
    classes: ClassVar[Mapping[str, str]] = SKLEARN

    def __init__(
        self, what: str = "IsolationForest", options: Mapping[str, Any] | None = None, features: str = PIXELS
    ) -> None:
        super().__init__(what, options, features)

    def _class(self) -> Any:
        found = getattr(optional(SKLEARN[self.what], extra="interop"), self.what)
        if self.what != "LocalOutlierFactor":
            return found
        if self.options.get("novelty", True) is not True:
            raise InputError(f"{self._title}: scores the training images only without novelty; leave it out")
        return _with_novelty(found)

    def _outlyingness(self, rows: FloatArray) -> FloatArray:
        return -np.asarray(self._estimator.score_samples(rows))


class PyODDetector(OutlierDetector):
    """An outlier detector of PyOD; the score is its `decision_function`.

    ECOD and COPOD rank the images of a batch among each other: they are given one image at a time. See
    `OutlierDetector` for the arguments and for what a folder holds.
    """

    name: ClassVar[str] = "pyod"
    classes: ClassVar[Mapping[str, str]] = PYOD

    def __init__(
        self, what: str = "IForest", options: Mapping[str, Any] | None = None, features: str = PIXELS
    ) -> None:
        super().__init__(what, options, features)

    def _class(self) -> Any:
        return getattr(optional(f"pyod.models.{PYOD[self.what]}", extra="interop"), self.what)

    def _outlyingness(self, rows: FloatArray) -> FloatArray:
        if self.what not in ONE_BY_ONE:
            return np.asarray(self._estimator.decision_function(rows))
        return np.concatenate([self._estimator.decision_function(row[None]) for row in rows])


def _with_novelty(found: Any) -> Any:
    def made(**options: Any) -> Any:
        return found(**{"novelty": True, **options})

    return made


def _float64(rows: Tensor) -> FloatArray:
    return np.ascontiguousarray(rows.cpu().numpy(), dtype=np.float64)


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global state, which some estimators draw from, and put it back."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
