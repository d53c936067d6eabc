"""A detector of diffad where scikit-learn expects an outlier detector.

>>> import numpy as np
>>> from diffad import detector_class
>>> estimator = as_sklearn(detector_class("pixel_nn")(), image_shape=(1, 4, 4))
>>> estimator.fit(np.random.default_rng(0).random((40, 16))).predict(np.zeros((2, 16))).shape
(2,)
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch

from certify.checks import InputError
from diffad.detector import Detector, allowed_quantile

HELD_OUT = 0.5  # share of the images that sets the threshold and is not fitted on


class SklearnOutlierDetector:
    """Rows (n, c * h * w) or images (n, c, h, w) in [0, 1] as scikit-learn scores them: higher = more normal.

    `fit` works on a copy of the detector: the first half of the rows is fitted on, the second sets `offset_`. `predict`
    gives +1 (normal) and -1; `decision_function` is `score_samples - offset_`.
    """

    def __init__(self, detector: Detector, image_shape: tuple[int, int, int], seed: int = 0) -> None:
        self.detector, self.image_shape, self.seed = detector, image_shape, seed

    def fit(self, X: Any, y: Any = None) -> SklearnOutlierDetector:
        """Fit on normal rows, at least four; `y` is ignored."""
        images = self._images(X)
        if len(images) < 4:
            raise InputError(f"X: got {len(images)} rows, need at least 4: half of them set the threshold")
        cut = len(images) - int(HELD_OUT * len(images))
        self.detector_ = copy.deepcopy(self.detector).fit(images[:cut], seed=self.seed)
        held_out = images[cut:]
        self.offset_ = -self.detector_.calibrate(held_out, allowed_quantile(len(held_out)))
        self.n_features_in_ = math.prod(self.image_shape)
        return self

    def score_samples(self, X: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return minus the scores (n,), higher = more normal."""
        if not hasattr(self, "detector_"):
            raise InputError("as_sklearn: is not fitted; call fit(normal rows)")
        return -self.detector_.score_array(self._images(X))

    def decision_function(self, X: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return `score_samples - offset_` (n,), negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return +1 for normal rows and -1 for outliers (n,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Fit, and predict the same rows."""
        return self.fit(X).predict(X)

    def __sklearn_is_fitted__(self) -> bool:
        """Say whether `fit` was called, to `sklearn.utils.validation.check_is_fitted`."""
        return hasattr(self, "detector_")

    def __sklearn_tags__(self) -> Any:
        """Return the tags (scikit-learn 1.6 and later) by which pipelines and searches see an outlier detector."""
        from sklearn.utils import Tags, TargetTags

        return Tags(estimator_type="outlier_detector", target_tags=TargetTags(required=False))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"detector": self.detector, "image_shape": self.image_shape, "seed": self.seed}

    def set_params(self, **params: Any) -> SklearnOutlierDetector:
        """Change constructor arguments; unknown ones are refused."""
        for name, value in params.items():
            if name not in self.get_params():
                raise InputError(
                    f"as_sklearn: unknown parameter {name!r}, allowed are {', '.join(self.get_params())}"
                )
            setattr(self, name, value)
        return self

    def _images(self, X: Any) -> torch.Tensor:
        rows = np.asarray(X, dtype=np.float32)
        size = math.prod(self.image_shape)
        if rows.ndim not in (2, 4) or rows.size != len(rows) * size or rows.size == 0:
            raise InputError(
                f"X: got shape {rows.shape}, need (n, {size}) or (n, {', '.join(map(str, self.image_shape))})"
            )
        return torch.from_numpy(np.ascontiguousarray(rows.reshape(-1, *self.image_shape)))


def as_sklearn(
    detector: Detector, image_shape: tuple[int, int, int], *, seed: int = 0
) -> SklearnOutlierDetector:
    """Return an unfitted estimator around a detector, with the verbs and the signs of scikit-learn."""
    return SklearnOutlierDetector(detector, image_shape, seed)
