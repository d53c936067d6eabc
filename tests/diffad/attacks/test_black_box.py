"""Methods that need scores only, on a detector that has no gradient: scikit-learn's isolation forest on pixels."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from torch import Tensor

from certify.checks import InputError
from diffad.attacks import ATTACKS, attack, minimal_distance

SCORES_ONLY = [name for name, method in ATTACKS.items() if method.needs == "scores" and not method.material]
GRADIENTS = [name for name, method in ATTACKS.items() if method.needs == "gradients" and not method.material]


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, np.ndarray, IsolationForest]:
    """Test images (8 normal eights, 8 others), their labels, and a forest fitted to 100 other eights."""
    data = load_digits()
    pixels, eights = (data.images / 16).astype(np.float32)[:, None], data.target == 8
    forest = IsolationForest(n_estimators=20, random_state=0).fit(pixels[eights][8:108].reshape(100, -1))
    test = np.concatenate([pixels[eights][:8], pixels[~eights][:8]])
    return torch.from_numpy(test), np.repeat([0, 1], 8), forest


def outlier_score(forest: IsolationForest, images: Tensor) -> Tensor:
    return torch.from_numpy(-forest.score_samples(images.flatten(1).numpy()))


def test_a_score_that_returns_an_array_is_searched_and_its_gradient_refused(digits):
    images, labels, forest = digits

    def array_score(batch: Tensor) -> np.ndarray:
        return -forest.score_samples(batch.flatten(1).numpy())

    result = attack(array_score, images, labels, norm="linf", eps=0.1, method="square", steps=20)
    expected = attack(
        partial(outlier_score, forest), images, labels, norm="linf", eps=0.1, method="square", steps=20
    )
    np.testing.assert_array_equal(result.scores, expected.scores)
    with pytest.raises(InputError, match="use a method that needs scores only: black_box, transfer, square"):
        attack(array_score, images, labels, norm="linf", eps=0.1, steps=2)


def test_all_black_boxes_are_known():
    assert set(SCORES_ONLY) == {"square", "simba", "simba_dct", "noise", "nes", "spsa"}


@pytest.mark.parametrize("method", SCORES_ONLY)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("l2", 1.5)])
def test_an_isolation_forest_is_attacked_by_its_scores(digits, method, norm, eps):
    images, labels, forest = digits
    result = attack(
        partial(outlier_score, forest), images, labels, norm=norm, eps=eps, method=method, steps=60
    )
    signs = np.where(labels == 0, 1.0, -1.0)
    assert (signs * (result.scores - result.clean_scores) > 0).mean() > 0.8
    assert roc_auc_score(labels, result.scores) < roc_auc_score(labels, result.clean_scores) - 0.1
    assert result.info["gradient_evaluations"] == 0
    np.testing.assert_allclose(result.scores, outlier_score(forest, result.images).numpy(), rtol=1e-12)


@pytest.mark.parametrize("method", GRADIENTS)
def test_methods_that_need_gradients_refuse_and_name_those_that_do_not(digits, method):
    images, labels, forest = digits
    with pytest.raises(InputError, match="no gradient") as refused:
        attack(partial(outlier_score, forest), images, labels, norm="l2", eps=0.5, method=method)
    words = str(refused.value)
    assert "\n" not in words
    assert all(name in words for name in SCORES_ONLY)
    with pytest.raises(InputError, match="no gradient"):
        attack(lambda x: x.detach().mean((1, 2, 3)), images, labels, norm="l2", eps=0.5, method=method)


def test_other_runtime_errors_of_a_score_are_not_swallowed(digits):
    images, labels, _ = digits
    with pytest.raises(RuntimeError, match="shape"):
        attack(lambda x: x @ torch.ones(3, 3), images, labels, norm="l2", eps=0.5, clean_scores=np.zeros(16))


def test_the_minimal_distance_of_a_forest_is_found_by_its_scores(digits):
    images, labels, forest = digits
    score = partial(outlier_score, forest)
    threshold = float(np.median(score(images).numpy()))
    found = minimal_distance(
        score, images, labels, threshold, norm="linf", method="square", steps=20, rounds=9
    )
    assert np.isfinite(found.eps).mean() > 0.8
    across = np.isfinite(found.eps)
    np.testing.assert_array_equal((score(found.images).numpy() > threshold)[across], labels[across] == 0)
