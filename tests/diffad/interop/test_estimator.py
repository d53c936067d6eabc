"""Our detectors under the verbs and signs of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from certify.checks import InputError
from diffad.baselines.pixel_nn import PixelNN
from diffad.interop import as_sklearn

RANDOM = np.random.default_rng(0)
NORMALS, TEST = 0.4 + 0.2 * RANDOM.random((60, 16)), 0.4 + 0.2 * RANDOM.random((20, 16))
OUTLIERS = RANDOM.random((20, 16)).round()


def test_signs_are_those_of_scikit_learn() -> None:
    estimator = as_sklearn(PixelNN(), (1, 4, 4)).fit(NORMALS)
    rows, labels = np.concatenate([TEST, OUTLIERS]), np.repeat([1, 0], 20)
    scores = estimator.score_samples(rows)
    assert roc_auc_score(labels, scores) == 1.0
    np.testing.assert_array_equal(estimator.decision_function(rows), scores - estimator.offset_)
    predicted = estimator.predict(rows)
    assert set(predicted.tolist()) == {-1, 1}
    np.testing.assert_array_equal(predicted == -1, estimator.decision_function(rows) < 0)
    assert (predicted[20:] == -1).all()
    np.testing.assert_array_equal(estimator.score_samples(rows.reshape(-1, 1, 4, 4)), scores)


def test_the_detector_given_stays_as_it_is_and_the_estimator_is_cloned() -> None:
    detector = PixelNN()
    estimator = as_sklearn(detector, (1, 4, 4)).fit(NORMALS)
    assert detector.image_shape is None
    again = clone(estimator, safe=False).fit(NORMALS)
    np.testing.assert_array_equal(again.score_samples(TEST), estimator.score_samples(TEST))
    assert estimator.fit_predict(NORMALS).shape == (60,)
    assert estimator.set_params(seed=3).get_params()["seed"] == 3


def test_scikit_learn_sees_an_outlier_detector() -> None:
    estimator = as_sklearn(PixelNN(), (1, 4, 4))
    assert is_outlier_detector(estimator)
    assert get_tags(estimator).requires_fit
    assert not get_tags(estimator).target_tags.required
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)
    check_is_fitted(estimator.fit(NORMALS))
    inside = make_pipeline(FunctionTransformer(np.sqrt), as_sklearn(PixelNN(), (1, 4, 4))).fit(NORMALS**2)
    np.testing.assert_allclose(inside.score_samples(TEST**2), estimator.score_samples(TEST), atol=1e-6)
    assert is_outlier_detector(inside)


def test_what_does_not_fit_is_refused() -> None:
    estimator = as_sklearn(PixelNN(), (1, 4, 4))
    with pytest.raises(InputError, match="is not fitted"):
        estimator.score_samples(TEST)
    for bad in (NORMALS[:, :9], NORMALS[:3], NORMALS[:0]):
        with pytest.raises(InputError, match="X: got"):
            estimator.fit(bad)
    with pytest.raises(InputError, match="unknown parameter 'k'"):
        estimator.set_params(k=3)
